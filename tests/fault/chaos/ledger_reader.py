"""Reads the ledger from PostgreSQL after a round, and combines it with the deliveries."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from loadtest.proof.answers import JsonObject, micros_of
from loadtest.proof.ids import foreign_ids
from loadtest.proof.record import (
    ChangeRow,
    Delivery,
    HoldRow,
    HoldState,
    Ledger,
    TransferRow,
    WalletRow,
)
from tests.support.receivers import Received
from transferd.domain.ledger import Ledger as StoredLedger
from transferd.ledger.store.numbers import CHANGE_KINDS, HOLD_STATUSES

_WALLETS = """
SELECT id::text, currency, balance, overdraft_limit, version, funding, held
FROM {schema}.wallets"""
_TRANSFERS = """
SELECT id::text, source_wallet_id::text AS source, destination_wallet_id::text AS destination,
       amount, source_version, source_balance_after, destination_version,
       destination_balance_after, reverses_transfer_id::text AS reverses,
       (extract(epoch FROM created_at) * 1000000)::bigint AS at_us, hold_id::text AS hold
FROM unnest($1::uuid[], $2::bigint[]) AS before (wallet_id, version)
JOIN {schema}.transfers
    ON source_wallet_id = before.wallet_id AND source_version > before.version"""
_CHANGES = """
SELECT c.wallet_id::text AS wallet, c.version, kind, balance_after,
       coalesce(held_after, 0) AS held_after,
       (extract(epoch FROM created_at) * 1000000)::bigint AS at_us, hold_id::text AS hold,
       hold_amount AS amount, hold_captured AS captured, hold_released AS released,
       hold_status AS status, (extract(epoch FROM hold_expires_at) * 1000000)::bigint AS expires_us
FROM unnest($1::uuid[], $2::bigint[]) AS before (wallet_id, version)
JOIN {schema}.wallet_changes c
    ON c.wallet_id = before.wallet_id AND c.version > before.version"""
_HOLDS = """
SELECT h.id::text AS hold, source_wallet_id::text AS source,
       destination_wallet_id::text AS destination, amount, captured, released, h.status,
       (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_us
FROM unnest($1::uuid[], $2::bigint[]) AS before (wallet_id, version)
JOIN {schema}.wallets w ON w.id = before.wallet_id AND w.version > before.version
JOIN {schema}.holds h ON source_wallet_id = w.id"""
# Holds of the load are due within seconds, or days later.
_DUE = """
SELECT count(*) AS soon,
       count(*) FILTER (WHERE expires_at <= clock_timestamp() - make_interval(secs => $1)) AS late
FROM {schema}.holds
WHERE status = 0 AND expires_at <= clock_timestamp() + interval '1 hour'"""
_OUTCOMES = """
SELECT key, status, transfer_id::text AS transfer FROM {schema}.outcomes
WHERE starts_with(key, $1)"""
_WAITING = "SELECT coalesce(sum(event_count), 0)::bigint AS events FROM {schema}.outbox"


class LedgerReader:
    """Reads PostgreSQL directly, on a new connection each time, because it may be killed."""

    def __init__(self, url: str, ledger: StoredLedger) -> None:
        self._url = url
        self._of = ledger

    async def _fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        # The role has the timeouts of the service; these queries may take longer.
        connection = await asyncpg.connect(self._url, server_settings={"statement_timeout": "60s"})
        try:
            named = sql.format(schema=self._of.schema)
            rows: list[asyncpg.Record] = await connection.fetch(named, *arguments)
            return rows
        finally:
            await connection.close()

    async def wallets(self) -> dict[str, WalletRow]:
        """All wallets, of all rounds."""
        return {row["id"]: WalletRow(**dict(row)) for row in await self._fetch(_WALLETS)}

    async def waiting_events(self) -> int:
        """The number of events in the outbox."""
        [row] = await self._fetch(_WAITING)
        return int(row["events"])

    async def due_holds(self, late_s: float) -> tuple[int, int]:
        """The number of active holds that soon are due, and of those due `late_s` ago."""
        [row] = await self._fetch(_DUE, late_s)
        return row["soon"], row["late"]

    async def transfers(self, before: Mapping[str, WalletRow]) -> list[TransferRow]:
        """The transfers from these wallets that are newer than the versions in `before`."""
        rows = await self._fetch(_TRANSFERS, *_versions(before))
        return [TransferRow(**dict(row)) for row in rows]

    async def changes(self, before: Mapping[str, WalletRow]) -> list[ChangeRow]:
        """The changes of these wallets without a transfer that are newer than in `before`."""
        return [
            ChangeRow(
                row["wallet"],
                row["version"],
                CHANGE_KINDS[row["kind"]].value,
                row["balance_after"],
                row["held_after"],
                row["at_us"],
                None if row["hold"] is None else _state_of(row),
            )
            for row in await self._fetch(_CHANGES, *_versions(before))
        ]

    async def holds(self, before: Mapping[str, WalletRow]) -> list[HoldRow]:
        """The holds of the wallets that have changed since `before`."""
        return [
            HoldRow(row["source"], row["destination"], _state_of(row))
            for row in await self._fetch(_HOLDS, *_versions(before))
        ]

    async def events(self, before: Mapping[str, WalletRow]) -> set[str]:
        """The ids of the events of the transfers and holds that are newer than in `before`."""
        changes = {row.event_id for row in await self.changes(before) if row.hold is not None}
        return changes | {row.id for row in await self.transfers(before)}

    async def ledger(
        self,
        run: str,
        before: Mapping[str, WalletRow],
        received: Sequence[Received],
        listed: Sequence[bytes],
    ) -> Ledger:
        """The contents of the ledger, with the transfers, outcomes and deliveries of a round."""
        transfers = await self.transfers(before)
        outcomes = await self._fetch(_OUTCOMES, f"{run}-")
        ours = {row.id for row in transfers}

        def is_of_the_round(delivery: Delivery) -> bool:
            # An event of an unknown transfer belongs to the round if it has a newer version.
            return (
                delivery.transfer in ours
                or any(
                    wallet in before and version > before[wallet].version
                    for wallet, version in delivery.versions.items()
                )
                or bool(foreign_ids(delivery.body, self._of.number))
            )

        return Ledger(
            wallets=list((await self.wallets()).values()),
            transfers=transfers,
            outcomes={row["key"]: (row["status"], row["transfer"]) for row in outcomes},
            deliveries=[each for each in _deliveries(received) if is_of_the_round(each)],
            before=before,
            waiting_events=await self.waiting_events(),
            holds=await self.holds(before),
            changes=await self.changes(before),
            listed=listed,
            number=self._of.number,
            name=self._of.name,
        )


def _versions(before: Mapping[str, WalletRow]) -> tuple[list[UUID], list[int]]:
    return [UUID(each) for each in before], [each.version for each in before.values()]


def _state_of(row: asyncpg.Record) -> HoldState:
    return HoldState(
        row["hold"],
        row["amount"],
        row["captured"],
        row["released"],
        HOLD_STATUSES[row["status"]].value,
        row["expires_us"],
    )


def _deliveries(received: Sequence[Received]) -> list[Delivery]:
    """The events of transfers and holds, in the order of their arrival."""
    found = []
    for number, request in enumerate(received):
        event, data = request.json, request.json["data"]
        transfer, state = None, None
        if "source_version" in data:
            sides = ("source", "destination")
            versions = {data[f"{side}_wallet_id"]: data[f"{side}_version"] for side in sides}
            transfer = data["id"]
        elif event["type"].startswith("hold."):
            versions = {data["source_wallet_id"]: data["version"]}
            state = _told(data)
        else:
            continue
        delivery = Delivery(
            number, request.event_id, event["type"], transfer, versions, state, request.body
        )
        found.append(delivery)
    return found


def _told(data: JsonObject) -> HoldState:
    """The hold in an event."""
    return HoldState(
        data["id"],
        data["amount"],
        data["captured"],
        data["released"],
        data["status"],
        micros_of(data["expires_at"]) or 0,
    )
