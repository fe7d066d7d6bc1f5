"""Claims and replays of idempotency keys in Redis. They are hints; PostgreSQL decides."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from transferd.cache.keyspace import Keyspace
from transferd.cache.link import Link, Script
from transferd.config import Limits
from transferd.domain.key import Key

_CLAIM = Script("claim.lua")


class Claim(Enum):
    """The state of a key without a replay; UNKNOWN if Redis gives no valid answer."""

    OURS = "ours"
    BUSY = "busy"
    UNKNOWN = "unknown"


class Replay(NamedTuple):
    """The stored answer to a key, with the fingerprint of the request that it belongs to."""

    status: int
    fingerprint: bytes
    body: bytes

    def encode(self) -> bytes:
        """The stored form: "r", status, fingerprint in hexadecimal, body."""
        return b"r%03d%s%s" % (self.status, self.fingerprint.hex().encode(), self.body)

    @classmethod
    def decode(cls, value: bytes) -> "Replay":
        """The reverse of `encode`."""
        return cls(int(value[1:4]), bytes.fromhex(value[4:36].decode()), value[36:])


class Replays:
    """Claims keys of a ledger for one replica; `name` marks its claims."""

    def __init__(self, link: Link, limits: Limits, keyspace: Keyspace, name: str) -> None:
        self._link = link
        self._limits = limits
        self._keyspace = keyspace
        self.claim_value = f"c{name}"

    async def claim(self, keys: Sequence[Key]) -> list[Claim | Replay]:
        """Claim keys in one round trip; all are UNKNOWN if Redis does not answer."""
        if not keys:
            return []
        answers = await self._link.run(
            _CLAIM,
            self.claim_value,
            int(self._limits.claim_ttl_s * 1000),
            "\n".join(map(self._keyspace.of_key, keys)),
        )
        if answers is None or len(answers) != len(keys):
            return [Claim.UNKNOWN] * len(keys)
        return [_read(answer) for answer in answers]

    async def look_up(self, key: Key) -> Claim | Replay | None:
        """Read a key: a replay, BUSY for a claim, None without a value or an answer."""
        values = await self._link.get_many([self._keyspace.of_key(key)])
        if not values or values[0] is None:
            return None
        return Claim.BUSY if values[0].startswith(b"c") else _read(values[0])


def _read(answer: bytes) -> Claim | Replay:
    if answer == b"":
        return Claim.OURS
    if answer == b"b":
        return Claim.BUSY
    try:
        return Replay.decode(answer)
    except ValueError:
        # This code has not written the value. PostgreSQL decides, and the refresh replaces it.
        return Claim.UNKNOWN
