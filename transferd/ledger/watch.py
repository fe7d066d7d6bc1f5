"""Which of all ledgers have something to do: one statement asks many of them."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from transferd.config import Limits
from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import Database, Row
from transferd.ledger.store.errors import ConnectionFailure, LockTimeout, Rejected, StoreError
from transferd.ledger.store.ledgers import read_ledgers
from transferd.ledger.store.queries import query
from transferd.observability.facts import Facts, LedgerNotOpened

_ANSWER = "SELECT {} AS ledger, answer.* FROM ({}) answer"


class Answers(NamedTuple):
    """The rows of each ledger that has some; and why the others could not be asked."""

    rows: dict[Ledger, list[Row]]
    failures: dict[Ledger, StoreError]


class LedgerList:
    """The ledgers of a database, as of at most `ledgers_read_s` ago."""

    def __init__(self, database: Database, limits: Limits, clock: Callable[[], float]) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock
        self._read_at: float | None = None
        self._ledgers: dict[int, Ledger] = {}

    def __repr__(self) -> str:
        return f"<LedgerList of {len(self._ledgers)}>"

    @property
    def read_at(self) -> float | None:
        """When it was read, by the clock."""
        return self._read_at

    async def all(self) -> list[Ledger]:
        """By number. Raises StoreError if they were never read."""
        now = self._clock()
        if self._read_at is None or now - self._read_at >= self._limits.ledgers_read_s:
            try:
                found = await read_ledgers(self._database)
            except ConnectionFailure:
                # The nodes of ledgers may well answer.
                if self._read_at is None:
                    raise
            else:
                self._ledgers = {each.number: each for each in found}
            self._read_at = now
        return list(self._ledgers.values())

    async def find(self, number: int) -> Ledger | None:
        """None if there is no such ledger, or if it is newer than the list. Raises StoreError."""
        await self.all()
        return self._ledgers.get(number)


class LedgerWatch:
    """Asks ledgers a question of `queries.sql` that has the answer true or false.

    A ledger that cannot be asked, because its tables are missing or locked, is left out of the
    questions about many, and asked alone when the list of ledgers has been read again. One call
    asks `idle_groups_max` groups of idle ledgers; None: `idle_groups_asked_max`.
    """

    def __init__(
        self,
        database: Database,
        ledgers: LedgerList,
        name: str,
        *,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
        idle_groups_max: int | None = None,
    ) -> None:
        self._database = database
        self._idle_groups_max = idle_groups_max or limits.idle_groups_asked_max
        self._list = ledgers
        self._name = name
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._read_at: float | None = None
        self._known: list[Ledger] = []
        # Groups that stay the same, so that PostgreSQL has a plan for each.
        self._groups: list[Sequence[Ledger]] = []
        self._asked_at: list[float] = []
        # The questions that are not answered yet.
        self._asking: dict[asyncio.Task[list[Ledger]], Sequence[Ledger]] = {}
        # When the answer was last true.
        self._true_at: dict[Ledger, float] = {}
        self._left_out: set[Ledger] = set()
        self._to_ask_alone: list[Ledger] = []
        self._reported: set[Ledger] = set()

    def __repr__(self) -> str:
        return f"<LedgerWatch {self._name}: {len(self._true_at)} of {len(self._known)} busy>"

    @property
    def busy(self) -> list[Ledger]:
        """Ledgers whose answer was true within `ledger_busy_s` before the last question."""
        return list(self._true_at)

    async def ledgers(self) -> list[Ledger]:
        """The ledgers whose answer is true. Raises StoreError if none could be asked.

        Busy ones are asked at each call, and so are all if one statement can ask them; idle ones
        once in `ledger_idle_s`. A server that hangs is waited for `watch_wait_s`; its answer comes
        in a later call.
        """
        await self._renew()
        waiting = {ledger for asked in self._asking.values() for ledger in asked} - self._left_out
        begun = {
            asyncio.create_task(self._ask(group)): group
            for group in self._next_groups(self._clock())
            if waiting.isdisjoint(group)
        }
        self._asking |= begun
        for ledger in self._to_ask_alone:
            self._asking[asyncio.create_task(self._ask([ledger]))] = [ledger]
        self._to_ask_alone = []
        try:
            if begun:
                await asyncio.wait(begun, timeout=self._limits.watch_wait_s)
        except asyncio.CancelledError:
            for task in self._asking:
                task.cancel()
            raise
        found: dict[Ledger, None] = {}
        failures: list[StoreError] = []
        done = [task for task in self._asking if task.done()]
        for task in done:
            del self._asking[task]
            try:
                found.update(dict.fromkeys(await task))
            except StoreError as error:
                failures.append(error)
        if failures and len(failures) == len(done):
            raise failures[0]
        self._true_at.update(dict.fromkeys(found, self._clock()))
        return list(found)

    async def _renew(self) -> None:
        ledgers = await self._list.all()
        if self._list.read_at == self._read_at:
            return
        self._read_at = self._list.read_at
        self._to_ask_alone = sorted(self._left_out)
        # A ledger may be on another node by now.
        made = groups(self._database, ledgers, self._limits)
        if made != self._groups:
            self._known = ledgers
            self._groups = made
            self._asked_at = [-math.inf] * len(made)
            self._reported &= set(ledgers)

    def _next_groups(self, now: float) -> list[Sequence[Ledger]]:
        busy_s, idle_s = self._limits.ledger_busy_s, self._limits.ledger_idle_s
        known = set(self._known)
        self._true_at = {
            ledger: at
            for ledger, at in self._true_at.items()
            if now - at < busy_s and ledger in known
        }
        if len(self._groups) <= 1:
            return self._groups
        # First those that were asked longest ago.
        due = sorted((at, place) for place, at in enumerate(self._asked_at) if now - at >= idle_s)[
            : self._idle_groups_max
        ]
        for _, place in due:
            self._asked_at[place] = now
        return groups(self._database, sorted(self._true_at), self._limits) + [
            self._groups[place] for _, place in due
        ]

    async def _ask(self, group: Sequence[Ledger]) -> list[Ledger]:
        is_alone = len(group) == 1
        asked = [ledger for ledger in group if is_alone or ledger not in self._left_out]
        rows, failures = await ask(self._database, asked, self._name)
        for ledger, error in failures.items():
            self._left_out.add(ledger)
            if ledger not in self._reported:
                self._reported.add(ledger)
                self._facts.emit(LedgerNotOpened(ledger.name, str(error)))
        self._left_out -= rows.keys()
        self._reported -= rows.keys()
        return [ledger for ledger, [row] in rows.items() if row[1]]


def groups(database: Database, ledgers: Sequence[Ledger], limits: Limits) -> list[Sequence[Ledger]]:
    """The ledgers of each statement: they are on one node."""
    size = limits.ledgers_asked_max
    return [
        there[start : start + size]
        for there in database.by_node(ledgers)
        for start in range(0, len(there), size)
    ]


async def ask(
    database: Database, group: Sequence[Ledger], name: str, *arguments: object
) -> Answers:
    """Run the query `name` in each ledger of a group; rows begin with the number of the ledger.

    A ledger without its tables fails alone, and so does one whose tables are locked. Raises
    StoreError if PostgreSQL itself fails.
    """
    if not group:
        return Answers({}, {})
    try:
        rows = await database.read_beside(group[0], _union(group, name), arguments)
    except (Rejected, LockTimeout) as error:
        if len(group) == 1:
            return Answers({}, {group[0]: error})
        answers = [await ask(database, [each], name, *arguments) for each in group]
        return Answers(
            {ledger: rows for each in answers for ledger, rows in each.rows.items()},
            {ledger: error for each in answers for ledger, error in each.failures.items()},
        )
    by_number = {ledger.number: ledger for ledger in group}
    found: dict[Ledger, list[Row]] = {}
    for row in rows:
        found.setdefault(by_number[row[0]], []).append(row)
    return Answers(found, {})


def _union(group: Sequence[Ledger], name: str) -> str:
    return " UNION ALL ".join(
        _ANSWER.format(ledger.number, _without_comment(query(ledger.schema, name)))
        for ledger in group
    )


def _without_comment(sql: str) -> str:
    return "\n".join(line for line in sql.split("\n") if not line.startswith("--"))
