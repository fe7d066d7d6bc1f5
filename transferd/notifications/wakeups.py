"""Wake-ups as messages, and our consumers of the work queues that carry them."""

from collections.abc import Sequence
from uuid import UUID

import orjson
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from transferd.domain.ledger import MAIN


class WorkQueue:
    """A work queue that this worker consumes: it stands by until the queue sends it a wake-up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.channel: AbstractChannel | None = None
        # The newest wake-up, which is not acknowledged.
        self.newest: AbstractIncomingMessage | None = None
        # Whether the queue goes to another worker. Its wake-ups are not taken any more.
        self.is_left = False

    def __repr__(self) -> str:
        state = "left" if self.is_left else "active" if self.is_active else "standing by"
        return f"<WorkQueue {self.name}, {state}>"

    @property
    def is_active(self) -> bool:
        """Whether this worker delivers for the ledgers of the queue."""
        return self.newest is not None


def surplus(queues: Sequence[WorkQueue], workers: int) -> WorkQueue | None:
    """A queue for another worker, if this one has more than its share; the last one, because the
    first has the ledger main."""
    active = [queue for queue in queues if queue.is_active]
    share = -(-len(queues) // max(workers, 1))
    return active[-1] if len(active) > share else None


def encode_wakeup(ledger_number: int, endpoint_ids: Sequence[str]) -> bytes:
    """The body of a message that names endpoints of a ledger with due deliveries."""
    return orjson.dumps({"ledger": ledger_number, "endpoints": endpoint_ids})


def decode_wakeup(body: bytes) -> tuple[int, list[str]]:
    """The number of the ledger, and the ids of the endpoints. Raises ValueError for a message that
    is no wake-up. A message of the version before names no ledger: it is about main."""
    try:
        wakeup = orjson.loads(body)
        number = wakeup.get("ledger", MAIN.number)
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError("the ledger is not a number")
        return number, [str(UUID(id)) for id in wakeup["endpoints"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a wake-up: {error}") from error
