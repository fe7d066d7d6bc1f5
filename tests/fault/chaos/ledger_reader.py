"""Reads the ledger from PostgreSQL after a round, and combines it with the deliveries."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from loadtest.proof.record import Delivery, Ledger, TransferRow, WalletRow
from tests.support.receivers import Received

_WALLETS = """
SELECT id::text, currency, balance, overdraft_limit, version, funding FROM ledger_00.wallets"""
_TRANSFERS = """
SELECT id::text, source_wallet_id::text AS source, destination_wallet_id::text AS destination,
       amount, source_version, source_balance_after, destination_version,
       destination_balance_after, reverses_transfer_id::text AS reverses,
       (extract(epoch FROM created_at) * 1000000)::bigint AS at_us
FROM unnest($1::uuid[], $2::bigint[]) AS before (wallet_id, version)
JOIN ledger_00.transfers
    ON source_wallet_id = before.wallet_id AND source_version > before.version"""
_OUTCOMES = """
SELECT key, status, transfer_id::text AS transfer FROM transferd.outcomes
WHERE starts_with(key, $1)"""
_WAITING = "SELECT coalesce(sum(event_count), 0)::bigint AS events FROM ledger_00.outbox"


class LedgerReader:
    """Reads PostgreSQL directly, on a new connection each time, because it may be killed."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def _fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        # The role has the timeouts of the service; these queries may take longer.
        connection = await asyncpg.connect(self._url, server_settings={"statement_timeout": "60s"})
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
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

    async def transfers(self, before: Mapping[str, WalletRow]) -> list[TransferRow]:
        """The transfers from these wallets that are newer than the versions in `before`."""
        wallets = [UUID(each) for each in before]
        rows = await self._fetch(_TRANSFERS, wallets, [each.version for each in before.values()])
        return [TransferRow(**dict(row)) for row in rows]

    async def ledger(
        self, run: str, before: Mapping[str, WalletRow], received: Sequence[Received]
    ) -> Ledger:
        """The contents of the ledger, with the transfers, outcomes and deliveries of a round."""
        transfers = await self.transfers(before)
        outcomes = await self._fetch(_OUTCOMES, f"{run}-")
        ours = {row.id for row in transfers}

        def is_of_the_round(delivery: Delivery) -> bool:
            # An event of an unknown transfer belongs to the round if it has a newer version.
            return delivery.transfer in ours or any(
                wallet in before and version > before[wallet].version
                for wallet, version in delivery.versions.items()
            )

        return Ledger(
            wallets=list((await self.wallets()).values()),
            transfers=transfers,
            outcomes={row["key"]: (row["status"], row["transfer"]) for row in outcomes},
            deliveries=[each for each in _deliveries(received) if is_of_the_round(each)],
            before=before,
            waiting_events=await self.waiting_events(),
        )


def _deliveries(received: Sequence[Received]) -> list[Delivery]:
    """The events of transfers, in the order of their arrival."""
    found = []
    for number, request in enumerate(received):
        event, data = request.json, request.json["data"]
        if "source_version" in data:
            sides = ("source", "destination")
            versions = {data[f"{side}_wallet_id"]: data[f"{side}_version"] for side in sides}
            found.append(Delivery(number, request.event_id, event["type"], data["id"], versions))
    return found
