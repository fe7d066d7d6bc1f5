"""The messages of the work queue. A message wakes the notifier up; the rows decide what it does."""

from typing import NamedTuple
from uuid import UUID

import orjson

from transferd.ledger.store.deliveries import RetryKey


class WakeUp(NamedTuple):
    """`endpoints` have deliveries that are due; the time of each of `retries` has come."""

    endpoints: tuple[str, ...] = ()
    retries: tuple[RetryKey, ...] = ()

    def encode(self) -> bytes:
        """As the body of a message."""
        return orjson.dumps(
            {"endpoints": self.endpoints, "retries": [[*key] for key in self.retries]}
        )

    @classmethod
    def decode(cls, body: bytes) -> "WakeUp":
        """Raises ValueError for what is none."""
        try:
            members = orjson.loads(body)
            return cls(
                tuple(str(UUID(id)) for id in members["endpoints"]),
                tuple(_retry(*key) for key in members["retries"]),
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a wake-up: {error}") from error


def _retry(event_id: object, endpoint_id: object, attempts: object) -> RetryKey:
    if isinstance(event_id, str) and isinstance(endpoint_id, str) and isinstance(attempts, int):
        return RetryKey(event_id, str(UUID(endpoint_id)), attempts)
    raise ValueError("not a wake-up: a retry is not (event, endpoint, attempts)")
