"""The connection to PostgreSQL is cut at the COMMIT: the group is retried and executed once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.fault.conftest import IMPATIENT
from tests.support.api import Api, Reply
from tests.support.contract import transfer_body
from tests.support.home import execute_on_rows, proxied
from tests.support.pressure import counted, crowd, statuses
from tests.support.proxy import Cut, Proxy
from tests.support.truth import faults_in, row_count, transfers_of
from tests.support.waiting import SLOWNESS, until
from transferd.config import Limits
from transferd.ledger.store import group

Action = Callable[[Api, str, str], Awaitable[Reply]]
_CHANGES = "ledger_00.wallet_changes"


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """Between the replicas and PostgreSQL."""
    async with proxied(database) as proxy:
        yield proxy


async def transfer(api: Api, ada: str, bob: str) -> Reply:
    return await api.transfer(ada, bob, 10, key=f"of {ada}", reference=ada)


async def refused(api: Api, ada: str, bob: str) -> Reply:
    return await api.transfer(ada, bob, 1_000, key=f"of {ada}", reference=ada)


async def reversal(api: Api, ada: str, bob: str) -> Reply:
    [original] = (await api.get(f"/transfers?wallet_id={bob}")).json["data"]
    return await api.post(f"/transfers/{original['id']}/reversal", key=f"of {ada}")


async def freeze(api: Api, ada: str, bob: str) -> Reply:
    return await api.post(f"/wallets/{ada}/freeze")


async def new_limit(api: Api, ada: str, bob: str) -> Reply:
    return await api.patch(f"/wallets/{ada}", {"overdraft_limit": 5})


async def batch(api: Api, ada: str, bob: str) -> Reply:
    transfers = [transfer_body(ada, bob, amount) for amount in (1, 99_999, 2)]
    body = {"mode": "independent", "transfers": transfers}
    return await api.post("/transfers/batch", body, key=f"payday of {ada}")


async def hold(api: Api, ada: str, bob: str) -> Reply:
    return await api.hold(ada, 10, key=f"of {ada}", destination_wallet_id=bob)


async def capture(api: Api, ada: str, bob: str) -> Reply:
    [found] = (await api.get(f"/holds?wallet_id={ada}")).json["data"]
    return await api.about_hold(found["id"], "capture", {"amount": 6}, key=f"of {ada}")


async def release(api: Api, ada: str, bob: str) -> Reply:
    [found] = (await api.get(f"/holds?wallet_id={ada}")).json["data"]
    return await api.about_hold(found["id"], "release", key=f"of {ada}")


async def new_user(api: Api, ada: str, bob: str) -> Reply:
    return await api.post("/users", {"name": "Eve"})


async def new_wallet(api: Api, ada: str, bob: str) -> Reply:
    user = (await api.get(f"/wallets/{ada}")).json["user_id"]
    return await api.post("/wallets", {"user_id": user, "currency": "USD"})


async def new_full_wallet(api: Api, ada: str, bob: str) -> Reply:
    user = (await api.get(f"/wallets/{ada}")).json["user_id"]
    body = {"user_id": user, "currency": "USD", "initial_balance": 7}
    return await api.post("/wallets", body, key=f"of {ada}")


# A request, its status, and the rows that it adds to each table; to the first one at least one.
_ONCE: list[tuple[Action, int, dict[str, int]]] = [
    (transfer, 201, {"ledger_00.transfers": 1, "ledger_00.outcomes": 1}),
    (refused, 422, {"ledger_00.outcomes": 1, "ledger_00.transfers": 0}),
    (batch, 200, {"ledger_00.transfers": 2, "ledger_00.outcomes": 1, "ledger_00.outbox": 1}),
    (reversal, 201, {"ledger_00.transfers": 1, "ledger_00.outcomes": 1}),
    (hold, 201, {"ledger_00.holds": 1, "ledger_00.wallet_changes": 1, "ledger_00.outbox": 1}),
    (capture, 201, {"ledger_00.transfers": 1, "ledger_00.wallet_changes": 1}),
    (release, 200, {"ledger_00.wallet_changes": 1, "ledger_00.outbox": 1}),
    (freeze, 200, {"ledger_00.wallet_changes": 1, "ledger_00.outbox": 1}),
    (new_limit, 200, {"ledger_00.wallet_changes": 1, "ledger_00.outbox": 1}),
    (new_user, 201, {"ledger_00.users": 1}),
    (new_wallet, 201, {"ledger_00.wallets": 1, "ledger_00.wallet_changes": 1}),
    (new_full_wallet, 201, {"ledger_00.wallets": 1, "ledger_00.transfers": 1}),
]


@pytest.mark.parametrize(("action", "status", "rows"), _ONCE)
async def test_a_cut_commit_is_run_again_and_done_once(
    *,
    action: Action,
    status: int,
    rows: dict[str, int],
    replicas: Replicas,
    database: Database,
    proxy: Proxy,
) -> None:
    api = await replicas.start(database_url=proxy.url)
    for number, cut in enumerate(Cut, start=1):
        ada, bob = await api.wallet(100), await api.wallet()
        await api.transfer(ada, bob, 10)
        await api.hold(ada, 20, destination_wallet_id=bob)
        before = {table: await row_count(database, table) for table in rows}
        # Both are in the cache now.
        await assert_shown(api, database, ada, bob)
        proxy.arm(cut)
        reply = await action(api, ada, bob)
        assert (proxy.cuts, reply.status) == (number, status), cut
        await assert_shown(api, database, ada, bob)
        after = {table: await row_count(database, table) for table in rows}
        assert {table: after[table] - before[table] for table in rows} == rows, cut
        await assert_true(api, reply)
    assert await faults_in(database) == []


async def assert_shown(api: Api, database: Database, *wallets: str) -> None:
    """Reads show the committed state, whether or not the cache was updated."""
    for wallet in wallets:
        [row] = await database.fetch(
            "SELECT version, balance FROM ledger_00.wallets WHERE id = $1", wallet
        )
        shown = (await api.get(f"/wallets/{wallet}")).json
        assert (shown["version"], shown["balance"]) == (row["version"], row["balance"])


async def assert_true(api: Api, reply: Reply) -> None:
    """Everything that an answer of 201 describes exists, with the same values."""
    if reply.status == 201:
        shown = await api.get(reply.headers["Location"])
        assert shown.json == reply.json


async def _slow_commits(database: Database, table: str, *, seconds: float = 0.3) -> None:
    """Every COMMIT after an insert into the table takes this long."""
    await execute_on_rows(
        database,
        table,
        "CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$",
    )
    await execute_on_rows(
        database,
        table,
        "CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION public.dawdle()",
    )


@pytest.mark.parametrize(("action", "status", "rows"), _ONCE)
async def test_a_commit_that_goes_on_after_the_cut_is_waited_for(
    *,
    action: Action,
    status: int,
    rows: dict[str, int],
    replicas: Replicas,
    database: Database,
    proxy: Proxy,
) -> None:
    api = await replicas.start(database_url=proxy.url)
    ada, bob = await api.wallet(100), await api.wallet()
    await api.transfer(ada, bob, 10)
    await api.hold(ada, 20, destination_wallet_id=bob)
    table, count = next(iter(rows.items()))
    before = await row_count(database, table)
    await _slow_commits(database, table)
    proxy.arm(Cut.IN_FLIGHT)
    reply = await action(api, ada, bob)
    assert (proxy.cuts, reply.status) == (1, status)
    assert await row_count(database, table) == before + count
    assert await faults_in(database) == []
    await assert_true(api, reply)


@pytest.mark.parametrize("cut", Cut, ids=[cut.name for cut in Cut])
async def test_clients_do_not_notice_a_cut_of_a_whole_group(
    cut: Cut, replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api = await replicas.start(database_url=proxy.url)
    ada, bob = await api.wallet(200), await api.wallet()
    proxy.arm(cut, times=5)
    names = [f"part-{n}" for n in range(200)]
    replies = await crowd(
        (api.transfer(ada, bob, 1, key=name, reference=name) for name in names), at_once=40
    )
    assert statuses(replies) == {201: 200}
    assert proxy.cuts == 5
    assert await transfers_of(database, *names) == dict.fromkeys(names, 1)
    # 08003: the connection does not exist.
    assert counted(replicas, "transferd_group_retries_total", cause="08003") == 5
    assert await api.balance(bob) == 200
    assert await faults_in(database) == []


async def test_without_the_look_up_a_cut_commit_is_an_error(
    replicas: Replicas, database: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = group.lock_and_look_up

    async def blind(*arguments: Any, **options: Any) -> group.Locked:
        return (await look_up(*arguments, **options))._replace(outcomes={})

    api = await replicas.start(database_url=proxy.url)
    ada, bob = await api.wallet(100), await api.wallet()
    proxy.arm(Cut.AFTER)
    monkeypatch.setattr(group, "lock_and_look_up", blind)
    reply = await transfer(api, ada, bob)
    assert (reply.status, reply.code) == (500, "internal-error")
    # The tables still refuse a second transfer: the repetition has the same id and key.
    assert await transfers_of(database, ada) == {ada: 1}


async def test_a_commit_in_doubt_at_the_deadline_is_a_504(
    replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api = await replicas.start(IMPATIENT, database_url=proxy.url)
    ada, bob = await api.wallet(100), await api.wallet()
    proxy.arm(Cut.AFTER, then_stall=True)
    reply = await transfer(api, ada, bob)
    assert (reply.status, reply.code) == (504, "deadline-exceeded")
    assert "Retry-After" not in reply.headers
    proxy.resume()
    await until(lambda: _is_ready(api))
    assert (await api.get(f"/idempotency-keys/of {ada}")).json["state"] == "succeeded"
    again = await transfer(api, ada, bob)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert await transfers_of(database, ada) == {ada: 1}


async def test_a_commit_that_lasts_longer_than_all_attempts_is_a_504(
    replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    limits = replace(
        IMPATIENT,
        request_deadline_s=2.5,
        command_timeout_s=1.2,
        pool_acquire_timeout_s=Limits().pool_acquire_timeout_s,
    )
    await database.end_lock_waits(limits.lock_timeout_s)
    api = await replicas.start(limits, database_url=proxy.url)
    ada, bob = await api.wallet(100), await api.wallet()
    await _slow_commits(database, "ledger_00.transfers", seconds=2.4 * SLOWNESS)
    proxy.arm(Cut.IN_FLIGHT)
    # The running COMMIT holds the rows, so the repetition waits aside until its deadline.
    reply = await transfer(api, ada, bob)
    assert (reply.status, reply.code) == (504, "deadline-exceeded")
    await until(lambda: _has_happened(database, ada))
    again = await transfer(api, ada, bob)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")


async def _has_happened(database: Database, reference: str) -> bool:
    return await transfers_of(database, reference) == {reference: 1}


async def test_an_unreachable_database_is_a_503_without_effect(
    replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api = await replicas.start(IMPATIENT, database_url=proxy.url)
    ada, bob = await api.wallet(100), await api.wallet()
    proxy.arm(Cut.BEFORE, marker=b"BEGIN\0", times=10_000)
    # On a busy machine the deadline may end an attempt; the next one gets an answer.
    while (reply := await transfer(api, ada, bob)).code == "deadline-exceeded":
        assert reply.status == 504
    assert (reply.status, reply.code) == (503, "database-unavailable")
    assert reply.headers["Retry-After"] == "1"
    assert proxy.cuts > 2
    assert await transfers_of(database, ada) == {}
    proxy.arm(Cut.BEFORE, times=0)
    assert (await transfer(api, ada, bob)).status == 201


async def _is_ready(api: Api) -> bool:
    return (await api.get("/readyz")).status == 200


@pytest.mark.needs_configuration(
    "one server", why="a replica is ready while the coordinator answers"
)
async def test_a_short_stall_of_the_network_only_delays(
    replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api = await replicas.start(
        Limits(command_timeout_s=0.5, pool_acquire_timeout_s=0.3), database_url=proxy.url
    )
    ada, bob = await api.wallet(200), await api.wallet()
    names = [f"part-{n}" for n in range(50)]
    proxy.stall()
    calls = [
        asyncio.create_task(api.transfer(ada, bob, 1, key=name, reference=name)) for name in names
    ]

    async def noticed() -> bool:
        return (await api.get("/readyz")).status == 503

    await until(noticed)
    proxy.resume()
    assert statuses(await asyncio.gather(*calls)) == {201: 50}
    assert await transfers_of(database, *names) == dict.fromkeys(names, 1)
    assert await faults_in(database) == []


async def test_repeated_cuts_of_connections_under_load_lose_nothing(
    replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    apis = [await replicas.start(database_url=proxy.url) for _ in range(2)]
    ada, bob = await apis[0].wallet(400), await apis[0].wallet()
    names = [f"part-{n}" for n in range(150)]

    answered = cuts = 0

    async def pay(n: int, name: str) -> Reply:
        nonlocal answered
        reply = await apis[n % 2].transfer(ada, bob, 1, key=name, reference=name)
        answered += 1
        return reply

    async def cut_often() -> None:
        nonlocal cuts
        while True:
            # Some requests have to succeed in between, on a busy machine too.
            await until(partial(lambda seen: answered > seen, answered))
            proxy.cut_all()
            cuts += 1

    cutting = asyncio.create_task(cut_often())
    replies = await crowd((pay(n, name) for n, name in enumerate(names)), at_once=20)
    cutting.cancel()
    assert cuts >= 5
    assert statuses(replies) == {201: 150}
    assert await transfers_of(database, *names) == dict.fromkeys(names, 1)
    assert await faults_in(database) == []


async def freeze_if_new(api: Api, wallet: str, key: str | None = None) -> Reply:
    """Freeze the wallet if it has its first version."""
    return await api.post(f"/wallets/{wallet}/freeze", key=key, headers={"If-Match": '"w0"'})


async def freeze_with_cut(
    cut: Cut, replicas: Replicas, database: Database, proxy: Proxy, key: str | None = None
) -> tuple[Api, str, Reply]:
    """Freeze a new wallet while the COMMIT is cut, and check that one change is stored.

    Returns the client, the id of the wallet and the answer.
    """
    api = await replicas.start(database_url=proxy.url)
    ada = await api.wallet()
    before = await row_count(database, _CHANGES)
    proxy.arm(cut)
    reply = await freeze_if_new(api, ada, key)
    assert proxy.cuts == 1
    assert await row_count(database, _CHANGES) == before + 1
    return api, ada, reply


@pytest.mark.parametrize("cut", Cut, ids=[cut.name for cut in Cut])
async def test_a_conditional_change_with_a_key_is_made_once_and_replayed(
    cut: Cut, replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api, ada, done = await freeze_with_cut(cut, replicas, database, proxy, key="stop")
    assert (done.status, done.json["version"]) == (200, 1)
    assert "Idempotent-Replayed" not in done.headers
    changes = await row_count(database, _CHANGES)
    again = await freeze_if_new(api, ada, key="stop")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (done.body, "true")
    assert await row_count(database, _CHANGES) == changes
    assert await faults_in(database) == []


@pytest.mark.parametrize("cut", Cut, ids=[cut.name for cut in Cut])
async def test_a_conditional_change_in_doubt_without_a_key_is_a_504_and_never_a_412(
    cut: Cut, replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api, ada, reply = await freeze_with_cut(cut, replicas, database, proxy)
    if reply.status == 200:
        # The first attempt was rolled back, and the second one made the change.
        assert (reply.json["status"], reply.json["version"]) == ("frozen", 1)
    else:
        # The first attempt made the change. The second cannot know that and must not answer 412.
        assert (reply.status, reply.code) == (504, "deadline-exceeded")
    assert (reply.status == 200) == (cut is Cut.BEFORE)
    assert (await api.get(f"/wallets/{ada}")).json["status"] == "frozen"
    assert await faults_in(database) == []
