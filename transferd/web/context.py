"""What the routes of a replica work with; the composition root puts it together."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transferd.actors.router import Router
from transferd.cache.link import Link
from transferd.cache.replays import Replays
from transferd.cache.wallets import Wallets
from transferd.config import Limits, Settings
from transferd.domain.hold import Hold
from transferd.domain.ledger import Ledger
from transferd.ledger.past import Past
from transferd.ledger.store.currencies import Currency
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.observability.facts import Facts
from transferd.observability.metrics import Metrics
from transferd.shared_reads import SharedReads
from transferd.web.key_uses import KeyUses
from transferd.web.rendering import Rendering
from transferd.web.streams import Streams


@dataclass(slots=True)
class Lifecycle:
    """The state of the replica. While it drains `/readyz` is 503 and answers close connections."""

    is_draining: bool = False
    # Whether PostgreSQL answered the last `/readyz` or `/metrics`.
    database_answers: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether commands should be sent here."""
        return self.database_answers and not self.is_draining


@dataclass(frozen=True, slots=True)
class AppContext:
    """Everything that a route may need. `clock` gives seconds; `currencies` are by code."""

    settings: Settings
    limits: Limits
    # TRANSFERD_LEDGER.
    ledger: Ledger
    # The pool for reads: of what belongs to no ledger, and of the ledger.
    shared: Database
    database: LedgerDatabase
    probe: Database
    link: Link
    wallets: Wallets
    past: Past
    holds: SharedReads[Hold]
    replays: Replays
    router: Router
    rendering: Rendering
    streams: Streams
    key_uses: KeyUses
    # Permits for batches in progress.
    batches: asyncio.Semaphore
    currencies: Mapping[str, Currency]
    funding_wallet_ids: frozenset[str]
    lifecycle: Lifecycle
    facts: Facts
    metrics: Metrics
    clock: Callable[[], float]
