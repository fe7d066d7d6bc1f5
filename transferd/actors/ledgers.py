"""The ledgers that a replica has open, each with actors, committers and caches of its own."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

from transferd.actors.intake import Intake
from transferd.actors.router import Router
from transferd.cache.keyspace import Keyspace
from transferd.cache.link import Link
from transferd.cache.replays import Replays
from transferd.cache.wallets import Wallets
from transferd.commit.committer import CommitParts, Committer
from transferd.commit.lanes import Lanes
from transferd.commit.renderer import Renderer
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
from transferd.share import Share
from transferd.shared_reads import SharedReads


class ReplicaParts(NamedTuple):
    """What all ledgers of a replica share. `clock` returns seconds.

    `replica` names its claims in Redis. `commits` has a connection for each lane, of both kinds.
    """

    replica: str
    reads: Database
    commits: Database
    link: Link
    renderer: Renderer
    limits: Limits
    facts: Facts
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class OpenLedger:
    """What the requests of a ledger work with. `currencies` are by code, `batches` are permits."""

    database: LedgerDatabase
    router: Router
    wallets: Wallets
    replays: Replays
    batches: Share
    past: Past
    holds: SharedReads[Hold]
    currencies: Mapping[str, Currency]
    funding_wallet_ids: frozenset[str]


class OpenLedgers:
    """Opens a ledger at its first use."""

    def __init__(self, parts: ReplicaParts) -> None:
        self._parts = parts
        self._limits = limits = parts.limits
        self.intake = Intake(limits)
        self.lanes = Lanes(limits.lanes_max, limits.group_pause_max_s)
        # A batch takes long, so it does not take a lane from other commands. More than one lane: a
        # batch that waits for a locked wallet delays no batch of another ledger.
        self.bulk_lanes = Lanes(limits.lanes_max, limits.group_pause_max_s)
        self._settling_locks = asyncio.Semaphore(limits.settling_locks_all_max)
        self._batches = asyncio.Semaphore(limits.batches_all_max)
        self._recent: OrderedDict[int, OpenLedger] = OrderedDict()
        # Also those that are not recent and still in use, so that a ledger is open only once.
        self._open: WeakValueDictionary[int, OpenLedger] = WeakValueDictionary()
        self._opening: dict[int, asyncio.Task[OpenLedger]] = {}

    def __repr__(self) -> str:
        return f"<OpenLedgers {len(self._recent)} of {self._limits.open_ledgers_max}>"

    def __iter__(self) -> Iterator[OpenLedger]:
        """Those that are open now."""
        return iter(list(self._open.values()))

    async def of(self, ledger: Ledger) -> OpenLedger:
        """The ledger, opened. Raises StoreError, or DatabaseUnavailable if it is not migrated."""
        number = ledger.number
        found = self._recent.get(number) or self._open.get(number)
        # With a later cache generation the ledger was restored: nothing that was read holds.
        if found is None or found.database.ledger.cache_generation < ledger.cache_generation:
            found = await self._opened(ledger)
        self._recent[number] = found
        self._recent.move_to_end(number)
        while len(self._recent) > self._limits.open_ledgers_max:
            self._recent.popitem(last=False)
        return found

    async def sweep(self) -> None:
        """Let routers fail what waits too long and forget idle actors, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.sweep_interval_s)
            self.sweep_once()

    def sweep_once(self) -> int:
        """Run one round of `sweep`. Returns how many commands have failed."""
        return sum(ledger.router.sweep_once() for ledger in self)

    async def _opened(self, ledger: Ledger) -> OpenLedger:
        """Read once for all that wait for it."""
        number = ledger.number
        opening = self._opening.get(number)
        if opening is None:
            opening = self._opening[number] = asyncio.create_task(self._read(ledger))
            opening.add_done_callback(lambda _: self._opening.pop(number))
        # A caller may be cancelled; the others still wait.
        return await asyncio.shield(opening)

    async def _read(self, ledger: Ledger) -> OpenLedger:
        database = self._parts.reads.of(ledger)
        try:
            if absent := await absent_from(database):
                raise self._refusal(ledger, f"{absent[0]} is not applied: run `transferd migrate`")
            currencies = {each.code: each for each in await read_currencies(database)}
        except Rejected as error:
            raise self._refusal(ledger, str(error)) from error
        opened = self._open[ledger.number] = self._assembled(database, currencies)
        return opened

    def _assembled(
        self, database: LedgerDatabase, currencies: Mapping[str, Currency]
    ) -> OpenLedger:
        parts, limits = self._parts, self._limits
        keyspace = Keyspace(database.ledger)
        wallets = Wallets(parts.link, limits, keyspace)
        replays = Replays(parts.link, limits, keyspace, parts.replica)
        of_ledger = CommitParts(
            parts.commits.of(database.ledger), database, wallets, replays, parts.renderer
        )
        committer, bulk = (
            Committer(of_ledger, lanes, limits, parts.facts, parts.clock)
            for lanes in (self.lanes, self.bulk_lanes)
        )
        return OpenLedger(
            database,
            Router(self.intake, committer, bulk, parts.renderer, limits, parts.clock),
            wallets,
            replays,
            Share(limits.batches_max, self._batches),
            Past(database, limits, Share(limits.settling_locks_max, self._settling_locks)),
            SharedReads(partial(holds_now, database), limits.hold_read_ids_max),
            currencies,
            frozenset(each.funding_wallet_id for each in currencies.values()),
        )

    def _refusal(self, ledger: Ledger, reason: str) -> DatabaseUnavailable:
        self._parts.facts.emit(LedgerNotOpened(ledger.name, reason))
        return DatabaseUnavailable(
            "The ledger cannot be used now; nothing happened. Try again after Retry-After."
        )
