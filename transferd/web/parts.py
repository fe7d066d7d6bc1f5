"""The parts of a replica that routes ask; the composition root puts them together."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transferd.actors.router import Router
from transferd.cache.link import Link
from transferd.cache.replays import Replays
from transferd.cache.wallets import Wallets
from transferd.config import Limits, Settings
from transferd.ledger.past import Past
from transferd.ledger.store.currencies import Currency
from transferd.ledger.store.database import Database
from transferd.observability.facts import Facts
from transferd.observability.metrics import Metrics
from transferd.web.key_uses import KeyUses
from transferd.web.rendering import Rendering
from transferd.web.streams import Streams


@dataclass(slots=True)
class Lifecycle:
    """Whether the replica is on its way out: `/readyz` says so and connections are closed."""

    is_draining: bool = False
    # What PostgreSQL said when `/readyz` or `/metrics` asked last.
    database_answers: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether commands should be sent here."""
        return self.database_answers and not self.is_draining


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a request may need. `clock` gives seconds; `currencies` are by code."""

    settings: Settings
    limits: Limits
    database: Database
    probe: Database
    link: Link
    wallets: Wallets
    past: Past
    replays: Replays
    router: Router
    rendering: Rendering
    streams: Streams
    key_uses: KeyUses
    # The places of batches.
    batches: asyncio.Semaphore
    currencies: Mapping[str, Currency]
    funding_wallet_ids: frozenset[str]
    lifecycle: Lifecycle
    facts: Facts
    metrics: Metrics
    clock: Callable[[], float]
