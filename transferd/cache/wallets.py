"""Wallet snapshots in Redis: rendered JSON with its version, so a hit needs no rendering."""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.cache.keyspace import Keyspace
from transferd.cache.link import Link, Script
from transferd.cache.replays import Replay
from transferd.config import Limits
from transferd.domain.key import Key
from transferd.shared_reads import SharedReads

_REFRESH = Script("refresh.lua")
_RESERVE = Script("reserve.lua")
_FILL = Script("fill.lua")


class Snapshot(NamedTuple):
    """The body of a wallet in the API, at one version.

    Without a body it only keeps older versions out of the cache.
    """

    wallet_id: str
    version: int
    body: bytes


class Wallets:
    """Reads and writes snapshots of a ledger's wallets.

    Concurrent reads share a round trip; a write never replaces a newer version.
    """

    def __init__(self, link: Link, limits: Limits, keyspace: Keyspace) -> None:
        self._link = link
        self._limits = limits
        self._keyspace = keyspace
        self._reads = SharedReads(self._read, limits.cache_read_keys_max)

    async def get(self, wallet_id: str) -> Snapshot | None:
        """The snapshot of a wallet; None if there is none or Redis does not answer."""
        if not self._link.is_available:
            return None
        return await self._reads.get(wallet_id)

    def is_storable(self, hold_expires_at: datetime | None, now: datetime) -> bool:
        """Whether the body of a wallet may be stored at this time of the database.

        From the expiry of a hold on, the wallet has another body at the same version. So a snapshot
        must end before the first expiry, with a second to spare for the clocks and the call.
        """
        if hold_expires_at is None:
            return True
        lasts_s = self._limits.snapshot_ttl_s + self._limits.snapshot_margin_s
        return (hold_expires_at - now).total_seconds() > lasts_s

    async def reserve(self, wallet_id: str) -> str:
        """Reserve the place of a snapshot before PostgreSQL is read. `fill` needs the result."""
        reservation = f"l{random.getrandbits(64):016x}"
        await self._link.run(
            _RESERVE,
            self._keyspace.of_wallet(wallet_id),
            reservation,
            int(self._limits.reservation_ttl_s * 1000),
        )
        return reservation

    async def fill(self, snapshot: Snapshot, reservation: str) -> None:
        """Store a snapshot read from PostgreSQL, unless the wallet has changed since `reserve`."""
        await self._link.run(
            _FILL,
            self._keyspace.of_wallet(snapshot.wallet_id),
            reservation,
            snapshot.version,
            b"%d %s" % (snapshot.version, snapshot.body),
            self._limits.snapshot_ttl_s,
        )

    async def refresh(
        self,
        snapshots: Sequence[Snapshot],
        replays: Sequence[tuple[Key, Replay]],
        releases: Sequence[tuple[Key, str]],
    ) -> None:
        """Write snapshots and replays of a group and release claims, in one round trip."""
        if not snapshots and not replays and not releases:
            return
        await self._link.run(
            _REFRESH,
            self._limits.snapshot_ttl_s,
            self._limits.replay_ttl_s,
            b"\n".join(
                b"%s\n%d %s" % (self._keyspace.of_wallet(s.wallet_id).encode(), s.version, s.body)
                for s in snapshots
            ),
            b"\n".join(
                self._keyspace.of_key(key).encode() + b"\n" + r.encode() for key, r in replays
            ),
            "\n".join(f"{self._keyspace.of_key(key)}\n{claim}" for key, claim in releases),
        )

    async def _read(self, ids: Sequence[str]) -> dict[str, Snapshot]:
        values = await self._link.get_many([self._keyspace.of_wallet(id) for id in ids]) or ()
        found = (_snapshot_of(id, value) for id, value in zip(ids, values, strict=False))
        return {each.wallet_id: each for each in found if each is not None}


def _snapshot_of(wallet_id: str, value: bytes | None) -> Snapshot | None:
    if value is None:
        return None
    version, _, body = value.partition(b" ")
    # Any other value is a reservation, or was not written by this code.
    return Snapshot(wallet_id, int(version), body) if version.isdigit() and body else None
