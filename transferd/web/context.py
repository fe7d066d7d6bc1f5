"""What the routes of a replica work with; the composition root puts it together."""

from collections.abc import Callable
from dataclasses import dataclass

from transferd.actors.intake import Intake
from transferd.actors.ledgers import OpenLedger, OpenLedgers
from transferd.cache.link import Link
from transferd.config import Limits, Settings
from transferd.ledger.store.database import Database
from transferd.observability.facts import Facts
from transferd.observability.metrics import Metrics
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
    """Everything that a route may need. `clock` gives seconds."""

    settings: Settings
    limits: Limits
    # The ledger of requests without an API key.
    ledger: OpenLedger
    # The pool for reads.
    shared: Database
    ledgers: OpenLedgers
    probe: Database
    link: Link
    intake: Intake
    rendering: Rendering
    streams: Streams
    key_uses: KeyUses
    lifecycle: Lifecycle
    facts: Facts
    metrics: Metrics
    clock: Callable[[], float]
