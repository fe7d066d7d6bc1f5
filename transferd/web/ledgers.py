"""The ledgers that a replica has open."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

from transferd.cache.keyspace import Keyspace
from transferd.cache.link import Link
from transferd.cache.replays import Replays
from transferd.cache.wallets import Wallets
from transferd.config import Limits
from transferd.domain.errors import DatabaseUnavailable
from transferd.domain.hold import Hold
from transferd.domain.ledger import Ledger
from transferd.ledger.migrate import absent_from
from transferd.ledger.past import Past
from transferd.ledger.store.currencies import Currency, read_currencies
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.errors import Rejected
from transferd.ledger.store.holds import holds_now
from transferd.observability.facts import Facts, LedgerNotOpened
from transferd.shared_reads import SharedReads


@dataclass(frozen=True, slots=True, weakref_slot=True)
class OpenLedger:
    """What the requests of a ledger work with. `currencies` are by code."""

    database: LedgerDatabase
    keyspace: Keyspace
    wallets: Wallets
    replays: Replays
    past: Past
    holds: SharedReads[Hold]
    currencies: Mapping[str, Currency]
    funding_wallet_ids: frozenset[str]


class OpenLedgers:
    """Opens a ledger at its first request. `replica` names the claims of the replica in Redis."""

    def __init__(
        self, database: Database, link: Link, limits: Limits, facts: Facts, *, replica: str
    ) -> None:
        self._database = database
        self._link = link
        self._limits = limits
        self._facts = facts
        self._replica = replica
        self._settling_locks = asyncio.Semaphore(limits.settling_locks_max)
        self._recent: OrderedDict[int, OpenLedger] = OrderedDict()
        # Also those that are not recent and still in use, so that a ledger is open only once.
        self._open: WeakValueDictionary[int, OpenLedger] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<OpenLedgers {len(self._recent)} of {self._limits.open_ledgers_max}>"

    async def of(self, ledger: Ledger) -> OpenLedger:
        """The ledger, opened. Raises StoreError, or DatabaseUnavailable if it is not migrated."""
        number = ledger.number
        found = self._recent.get(number)
        if found is None:
            found = self._open.get(number) or self._open.setdefault(
                number, await self._read(ledger)
            )
            self._recent[number] = found
            while len(self._recent) > self._limits.open_ledgers_max:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(number)
        found.keyspace.renew(ledger)
        return found

    async def _read(self, ledger: Ledger) -> OpenLedger:
        database, limits, keyspace = self._database.of(ledger), self._limits, Keyspace(ledger)
        try:
            if absent := await absent_from(database):
                raise self._refusal(ledger, f"{absent[0]} is not applied: run `transferd migrate`")
            currencies = {each.code: each for each in await read_currencies(database)}
        except Rejected as error:
            raise self._refusal(ledger, str(error)) from error
        return OpenLedger(
            database,
            keyspace,
            Wallets(self._link, limits, keyspace),
            Replays(self._link, limits, keyspace, self._replica),
            Past(database, limits, self._settling_locks),
            SharedReads(partial(holds_now, database), limits.hold_read_ids_max),
            currencies,
            frozenset(each.funding_wallet_id for each in currencies.values()),
        )

    def _refusal(self, ledger: Ledger, reason: str) -> DatabaseUnavailable:
        self._facts.emit(LedgerNotOpened(ledger.name, reason))
        return DatabaseUnavailable(
            "The ledger cannot be used now; nothing happened. Try again after Retry-After."
        )
