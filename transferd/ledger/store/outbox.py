"""The outbox: events that wait to be published, in rows of one group each."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import LedgerDatabase, Transaction


class OutboxRow(NamedTuple):
    """The events of one group, in their order, as a JSON array; and the version of the webhooks."""

    seq: int
    created_at: datetime
    events: str
    webhooks_version: int


# Questions about all ledgers (`ledger.watch`): whether the outbox has rows, and its size.
HAS_ROWS = "outbox_has_rows"
SIZE = "outbox_size"


def lease_of(ledger: Ledger) -> str:
    """The name of the relay's lease, which counts its deliveries."""
    return ledger.schema


async def has_rows(database: LedgerDatabase) -> bool:
    """Whether the outbox has rows."""
    [row] = await database.fetch(HAS_ROWS)
    return bool(row[0])


async def take_lease(transaction: Transaction, suffix: str = "") -> bool:
    """Whether this transaction has the lease of the relay: it may publish until it ends.

    With a suffix, the lease of another task of the ledger.
    """
    return bool(await transaction.fetch("take_lease", lease_of(transaction.ledger) + suffix))


async def read_outbox(transaction: Transaction, *, events_max: int) -> list[OutboxRow]:
    """The oldest rows, until they hold `events_max` events.

    To be asked only after `take_lease`: a statement sees what was committed when it began, so one
    that had begun earlier could show rows that another relay has published since.
    """
    return [OutboxRow(*row) for row in await transaction.fetch("read_outbox", events_max)]


async def delete_outbox(transaction: Transaction, rows: Sequence[int]) -> None:
    """Remove rows by their sequence numbers."""
    await transaction.fetch("delete_outbox", list(rows))


async def insert_outbox(transaction: Transaction, events: Sequence[bytes]) -> None:
    """Add a row of events, each as JSON, which are published like all others."""
    await transaction.fetch("insert_outbox", len(events), "[" + b",".join(events).decode() + "]")
