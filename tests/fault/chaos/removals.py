"""Removes layers of protections from the service before it starts.

The service has no switch for this, so these functions replace public functions, and words in named
queries and scripts. A removal that does not match the code ends the program, and the test of each
removal requires its damage, so an outdated removal fails a test.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from tests.fault.chaos.decision_removals import (
    frozen_wallets_as_active,
    holds_as_before_the_lock,
    no_expiry_first,
    no_limit_in_decide,
    no_sums_of_reversals,
)
from tests.fault.chaos.replacing import replace, reword
from transferd.cache.link import Link, Script
from transferd.cache.wallets import Wallets
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store import database, group, outbox
from transferd.ledger.store.deliveries import DeliveryRecord, record_deliveries
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.group_rows import GroupResult
from transferd.ledger.store.wallets import read_wallets
from transferd.notifications import notifier
from transferd.web import past_schemas, rendering
from transferd.web.calls import Call

# How late a late write is: the duration of some groups.
_LATE_S = 0.2
# The event loop holds only weak references to tasks.
_tasks: set[asyncio.Task[Any]] = set()
# The statements that write a group.
_WRITES = ("write_group", "write_group_and_changes")


def _ignore_failed_commits() -> None:
    def make(true: Any) -> Any:
        @asynccontextmanager
        async def transaction(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
            whole = true(*arguments, **options)
            inside = await whole.__aenter__()
            try:
                yield inside
            except BaseException as error:
                await whole.__aexit__(type(error), error, error.__traceback__)
                raise
            with suppress(StoreError):
                await whole.__aexit__(None, None, None)

        return transaction

    replace(database.LedgerDatabase, "transaction", make)


def _commit_to_memory() -> None:
    def make(true: Any) -> Any:
        def create_pool(*arguments: Any, server_settings: dict[str, str], **options: Any) -> Any:
            settings = server_settings | {"synchronous_commit": "off"}
            return true(*arguments, server_settings=settings, **options)

        return create_pool

    replace(asyncpg, "create_pool", make)


def _no_look_up() -> None:
    for name in ("lock_and_look_up", "lock_and_look_up_skipping"):
        join = "JOIN {ledger}.outcomes stored "
        reword(name, f"{join}USING (client_id, key)", f"{join}ON false")


def _no_first_look_up() -> None:
    """Look outcomes up only in an attempt that follows a failed attempt."""
    has_failed = False

    def make_transaction(true: Any) -> Any:
        @asynccontextmanager
        async def transaction(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
            nonlocal has_failed
            try:
                async with true(*arguments, **options) as inside:
                    yield inside
            except BaseException:
                has_failed = True
                raise
            has_failed = False

        return transaction

    def make_look_up(true: Any) -> Any:
        async def look_up(*arguments: Any, **options: Any) -> group.Locked:
            locked: group.Locked = await true(*arguments, **options)
            return locked if has_failed else locked._replace(outcomes={})

        return look_up

    replace(database.LedgerDatabase, "transaction", make_transaction)
    replace(group, "lock_and_look_up", make_look_up)


def _used_keys_count_as_new() -> None:
    for name in _WRITES:
        reword(name, "(SELECT count(*) FROM kept)", "cardinality($17::text[])")


def _written_late(part: str) -> Callable[[], None]:
    """Write one kind of row of a group in another transaction, soon after the COMMIT."""

    def apply() -> None:
        late: dict[database.Transaction, tuple[GroupResult, Mapping[str, int]]] = {}

        def make_write(true: Any) -> Any:
            async def write(
                inside: database.Transaction, result: GroupResult, **bounds: int
            ) -> None:
                rest = GroupResult(result.at, {})
                setattr(rest, part, getattr(result, part))
                setattr(result, part, [])
                late[inside] = rest, bounds
                await true(inside, result, **bounds)

            return write

        def make_transaction(true: Any) -> Any:
            @asynccontextmanager
            async def transaction(self: Any, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
                async with true(self, *arguments, **options) as inside:
                    try:
                        yield inside
                    except BaseException:
                        late.pop(inside, None)
                        raise
                if inside in late:
                    _let_run(write_late(true(self), *late.pop(inside)))

            return transaction

        true_write = group.write

        async def write_late(own: Any, rest: Any, bounds: Mapping[str, int]) -> None:
            await asyncio.sleep(_LATE_S)
            async with own as inside:
                await true_write(inside, rest, **bounds)

        replace(group, "write", make_write)
        replace(database.LedgerDatabase, "transaction", make_transaction)

    return apply


def _no_row_locks() -> None:
    for rows in ("ORDER BY wallets.id\n    ", "FROM locked))\n    "):
        reword("lock_and_look_up", f"{rows}FOR NO KEY UPDATE", rows)
        reword("lock_and_look_up_skipping", f"{rows}FOR NO KEY UPDATE SKIP LOCKED", rows)


def _no_version_check() -> None:
    for name in _WRITES:
        reword(name, "WHERE w.id = c.id AND w.version = c.version_read", "WHERE w.id = c.id")


def _replay_of_now() -> None:
    def make(true: Any) -> Any:
        async def as_of_now(source: Any, ids: Sequence[str]) -> dict[str, Any]:
            stored = await true(source, ids)
            wallets = await read_wallets(source, [t.source_wallet_id for t in stored.values()])
            return {
                id: each._replace(
                    source_version=wallets[each.source_wallet_id].version,
                    source_balance_after_minor=wallets[each.source_wallet_id].balance_minor,
                )
                for id, each in stored.items()
            }

        return as_of_now

    replace(rendering, "read_transfers", make)


def _delete_before_publishing() -> None:
    kept: list[Any] = []

    def make_read(true: Any) -> Any:
        async def read_outbox(transaction: Any, **options: Any) -> Any:
            rows, kept[:] = list(kept), []
            return rows or await true(transaction, **options)

        return read_outbox

    def make_has_rows(true: Any) -> Any:
        async def has_rows(store: database.LedgerDatabase) -> bool:
            if not await true(store):
                return False
            async with store.transaction() as transaction:
                kept[:] = await outbox.read_outbox(transaction, events_max=500)
                await outbox.delete_outbox(transaction, [row.seq for row in kept])
            return True

        return has_rows

    replace(outbox, "read_outbox", make_read)
    replace(outbox, "has_rows", make_has_rows)


def _record_before_delivery() -> None:
    def make(true: Any) -> Any:
        async def read_waiting(store: database.LedgerDatabase, *arguments: Any) -> Any:
            found, version = await true(store, *arguments)
            delivered = [
                DeliveryRecord(
                    event_id=each.event_id,
                    endpoint_id=each.endpoint_id,
                    status=DeliveryStatus.DELIVERED,
                    response_status=200,
                )
                for each in found
            ]
            async with store.transaction() as transaction:
                await record_deliveries(transaction, delivered)
            return found, version

        return read_waiting

    replace(notifier, "read_waiting", make)


def _no_min_version() -> None:
    assert "min_version" in past_schemas.WalletQuery.model_fields

    def make(true: Any) -> Any:
        def query(self: Call, model: Any) -> Any:
            asked = true(self, model)
            is_read = isinstance(asked, past_schemas.WalletQuery)
            return asked.model_copy(update={"min_version": None}) if is_read else asked

        return query

    replace(Call, "query", make)


def _no_wait_for_writers() -> None:
    reword("lock_shared", "FOR SHARE", "")
    reword("lock_shared_skipping", "FOR SHARE SKIP LOCKED", "")


def _time_of_the_clock_alone() -> None:
    replace(group, "time_of_group", lambda _: lambda now, wallets: now)


def _old_over_new_snapshots() -> None:
    guarded, open_to_all = Script("refresh.lua"), Script("refresh.lua")
    guard = 'not stored or stored <= tonumber(string.match(snapshot, "^%d+"))'
    assert guard in guarded.source, "refresh.lua no longer has this guard"
    open_to_all.source = guarded.source.replace(guard, "true")
    open_to_all.sha = hashlib.sha1(open_to_all.source.encode(), usedforsecurity=False).hexdigest()

    def make(true: Any) -> Any:
        async def run(self: Link, script: Script, *arguments: Any) -> Any:
            is_refresh = script.sha == guarded.sha
            return await true(self, open_to_all if is_refresh else script, *arguments)

        return run

    replace(Link, "run", make)


def _refresh_late() -> None:
    def make(true: Any) -> Any:
        async def refresh(*arguments: Any) -> None:
            _let_run(refresh_late(*arguments))

        async def refresh_late(*arguments: Any) -> None:
            await asyncio.sleep(_LATE_S)
            await true(*arguments)

        return refresh

    replace(Wallets, "refresh", make)


def _let_run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine in the background and ignore its failure."""

    async def run() -> None:
        with suppress(Exception):
            await coroutine

    task = asyncio.create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


PATCHES: Mapping[str, Callable[[], None]] = {
    "commit-before-answer": _ignore_failed_commits,
    "synchronous-commit": _commit_to_memory,
    "look-up": _no_look_up,
    "first-look-up": _no_first_look_up,
    "key-conflict": _used_keys_count_as_new,
    "outcome-in-transaction": _written_late("outcomes"),
    "event-in-transaction": _written_late("events"),
    "row-locks": _no_row_locks,
    "version-check": _no_version_check,
    "funds-in-decide": no_limit_in_decide,
    "reversed-sums": no_sums_of_reversals,
    "expiry-first": no_expiry_first,
    "hold-ends-once": holds_as_before_the_lock,
    "frozen": frozen_wallets_as_active,
    "replay-as-stored": _replay_of_now,
    "publish-before-delete": _delete_before_publishing,
    "deliver-before-record": _record_before_delivery,
    "min-version": _no_min_version,
    "wait-for-writers": _no_wait_for_writers,
    "never-decreasing-time": _time_of_the_clock_alone,
    "newer-snapshot": _old_over_new_snapshots,
    "refresh-before-answer": _refresh_late,
}

# Layers that are constraints of tables, alone or with a patch of the same name.
CONSTRAINTS: Mapping[str, Sequence[tuple[str, str]]] = {
    "version-keys": (
        ("transfers", "transfers_source_wallet_id_source_version_key"),
        ("transfers", "transfers_destination_wallet_id_destination_version_key"),
    ),
    "funds-in-table": (("wallets", "wallets_check1"),),
    # They turn a part of the damage into 500s.
    "hold-ends-once": (("wallets", "wallets_held_check"), ("wallets", "wallets_open_holds_check")),
}


def remove(names: Iterable[str]) -> None:
    """Remove these layers from this process."""
    for name in names:
        if name in PATCHES or name not in CONSTRAINTS:
            PATCHES[name]()


def drops_of(names: Iterable[str], schema: str) -> list[str]:
    """The statements that remove these layers from the tables of a ledger."""
    return [
        f"ALTER TABLE {schema}.{table} DROP CONSTRAINT {constraint}"
        for name in names
        for table, constraint in CONSTRAINTS.get(name, ())
    ]
