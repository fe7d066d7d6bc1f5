"""Changes of holds that race: each hold ends once, by one clock, and the sums stay right."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import asyncpg
import pytest
import redis.asyncio as redis

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.home import home_url
from tests.support.outbox import events_in
from tests.support.past import clock_of
from tests.support.pressure import crowd, held_rows, statuses, until_waiting
from tests.support.truth import faults_in
from tests.support.waiting import until
from transferd.config import Limits
from transferd.domain.wallet import Wallet
from transferd.ledger.store import group
from transferd.ledger.store.holds import locked_hold_of
from transferd.ledger.store.queries import query

_UNSWEPT = Limits(expiry_sweep_s=3_600.0)
_PAYERS = 20
_HOLDS_EACH = 50


async def test_each_of_1000_holds_has_one_winner(replicas: Replicas, database: Database) -> None:
    apis = [await replicas.start(), await replicas.start()]
    # They expire while the calls about them race: the slower the machine, the later.
    ended: list[tuple[int, int]] = []
    for expires_in_s in (1, 3, 12, 48):
        ended.append(await _race_over_holds(apis, database, expires_in_s))
        if all(ended[-1]):
            break
    assert all(ended[-1]), ended


async def _race_over_holds(
    apis: Sequence[Api], database: Database, expires_in_s: int
) -> tuple[int, int]:
    """How many holds were ended by calls, and how many by their expiry."""
    first, second = apis
    payee = await first.wallet()
    payers = [await first.wallet(1_000) for _ in range(_PAYERS)]
    made = await crowd(
        first.hold(payer, 10, destination_wallet_id=payee, expires_in_s=expires_in_s + number % 3)
        for payer in payers
        for number in range(_HOLDS_EACH)
    )
    assert statuses(made) == {201: len(made)}
    ids = [reply.json["id"] for reply in made]
    calls = [
        call
        for id in ids
        for call in (
            first.about_hold(id, "capture", {"amount": 4}),
            second.about_hold(id, "capture", {"amount": 7}),
            first.about_hold(id, "release"),
            second.about_hold(id, "adjust", {"amount": 9}),
        )
    ]
    replies = await crowd(calls)
    assert set(statuses(replies)) <= {200, 201, 409}
    winners = [_winners(replies[at : at + 4]) for at in range(0, len(replies), 4)]
    assert max(winners) <= 1

    async def all_over() -> bool:
        [row] = await database.fetch("SELECT count(*) FROM ledger_00.holds WHERE status = 0")
        return bool(row[0] == 0)

    await until(all_over, within_s=expires_in_s + 20.0)
    captured = sum(reply.json["amount"] for reply in replies if reply.status == 201)
    assert await second.balance(payee) == captured
    shown = [await first.money(payer) for payer in payers]
    assert sum(balance for balance, _, _ in shown) == 1_000 * _PAYERS - captured
    assert {held for _, held, _ in shown} == {0}
    ends = Counter(
        event["type"] for event in await events_in(database) if event["data"]["id"] in ids
    )
    assert ends["hold.captured"] + ends["hold.released"] == sum(winners)
    assert sum(winners) + ends["hold.expired"] == len(ids)
    assert await faults_in(database) == []
    return sum(winners), ends["hold.expired"]


def _winners(replies: Iterable[Reply]) -> int:
    """The number of calls that ended a hold: final captures and releases."""
    return sum(reply.status == 201 or reply.json["status"] == "released" for reply in replies)


@pytest.mark.parametrize("is_one_key", [True, False], ids=["one key", "50 keys"])
async def test_50_equal_captures_pay_once(
    replicas: Replicas, database: Database, is_one_key: bool
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ada, bob = await apis[0].wallet(100), await apis[0].wallet()
    hold = (await apis[0].hold(ada, 60, destination_wallet_id=bob)).json["id"]
    keys = ["k"] * 50 if is_one_key else [f"k{number}" for number in range(50)]
    replies = await crowd(
        apis[number % 2].about_hold(hold, "capture", key=key) for number, key in enumerate(keys)
    )
    assert statuses(replies) == ({201: 50} if is_one_key else {201: 1, 409: 49})
    if is_one_key:
        assert len({reply.body for reply in replies}) == 1
    assert (await apis[0].balance(ada), await apis[1].balance(bob)) == (40, 60)
    assert await faults_in(database) == []


@pytest.mark.parametrize(("shift_ms", "status"), [(-1, 201), (0, 409), (1, 409)])
async def test_a_capture_is_decided_by_the_time_of_its_group(
    replicas: Replicas,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    shift_ms: int,
    status: int,
) -> None:
    api = await replicas.start(_UNSWEPT)
    ada, bob = await api.wallet(100), await api.wallet()
    hold = (await api.hold(ada, 60, destination_wallet_id=bob, expires_in_s=60)).json
    expires_at = datetime.fromisoformat(hold["expires_at"])

    def time_of_group(now: datetime, wallets: Iterable[Wallet]) -> datetime:
        return expires_at + timedelta(milliseconds=shift_ms)

    monkeypatch.setattr(group, "time_of_group", time_of_group)
    reply = await api.about_hold(hold["id"], "capture")
    assert reply.status == status, reply
    assert status == 201 or reply.code == "hold-expired"
    [row] = await database.fetch("SELECT status, captured FROM ledger_00.holds")
    assert tuple(row) == ((1, 60) if status == 201 else (3, 0))


async def test_a_wrong_clock_of_the_service_changes_nothing(
    replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await replicas.start(_UNSWEPT)
    ada, bob = await api.wallet(100), await api.wallet()
    real = time.time
    for hours in (1, -1):
        monkeypatch.setattr(time, "time", lambda ahead=hours * 3_600: real() + ahead)
        hold = (await api.hold(ada, 60, destination_wallet_id=bob, expires_in_s=60)).json
        left = datetime.fromisoformat(hold["expires_at"]) - await clock_of(database)
        assert timedelta(seconds=50) < left <= timedelta(seconds=60)
        assert (await api.get(f"/holds/{hold['id']}")).json["status"] == "active"
        assert await api.money(ada) == (100, 60, 40)
        assert (await api.about_hold(hold["id"], "release")).status == 200
    soon = (await clock_of(database) + timedelta(seconds=30)).isoformat()
    assert (await api.hold(ada, 1, expires_at=soon)).status == 201


async def test_after_a_flush_of_redis_no_read_shows_a_hold_that_is_over(
    replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(_UNSWEPT), await replicas.start(_UNSWEPT)]
    ada = await apis[0].wallet(100)
    cache = redis.from_url(database.settings().required("redis_url"))
    hold = (await apis[0].hold(ada, 60, expires_in_s=2)).json

    async def is_over() -> bool:
        await cache.flushdb()
        shown = [await api.money(ada) for api in apis]
        now = await clock_of(database)
        # Read before the clock: a hold that was shown then may be over by now, not the reverse.
        if now < datetime.fromisoformat(hold["expires_at"]):
            assert shown == [(100, 60, 40)] * 2
            return False
        return True

    await until(is_over)
    assert [await api.money(ada) for api in apis] == [(100, 0, 100)] * 2
    await cache.aclose()


async def test_a_capture_in_the_same_group_as_the_expiry_is_refused(api: Api) -> None:
    """Both hold locks wait for each other's wallet; the group expires first, then decides."""
    ada, bob = await api.wallet(100), await api.wallet(100)
    due = (await api.hold(ada, 60, destination_wallet_id=bob, expires_in_s=1)).json
    other = (await api.hold(bob, 10, destination_wallet_id=ada)).json

    async def has_expired() -> bool:
        return bool((await api.get(f"/holds/{due['id']}")).json["status"] == "expired")

    await until(has_expired)
    replies = await crowd(
        [
            api.about_hold(due["id"], "capture"),
            api.about_hold(other["id"], "capture"),
            api.transfer(ada, bob, 100),
        ]
    )
    assert [reply.status for reply in replies] == [409, 201, 201]


async def test_a_wallet_that_stays_locked_keeps_the_sweep_from_no_other(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(Limits(lock_timeout_s=1.0))
    locked, free = await api.wallet(100), await api.wallet(100)
    async with held_rows(database, locked):
        # More holds than the sweep looks at in one round.
        await database.fetch(
            "WITH made AS (INSERT INTO ledger_00.holds (id, source_wallet_id, amount, captured,"
            " released, created_at, updated_at, expires_at, status, currency, metadata)"
            " SELECT gen_random_uuid(), $1, 1, 0, 0, now(), now(), now(), 0, 'USD', '{}'"
            " FROM generate_series(1, $2)) SELECT",
            locked,
            Limits().expiry_look_holds_max + 1,
        )
        due = (await api.hold(free, 5, expires_in_s=1)).json["id"]

        async def is_written() -> bool:
            [row] = await database.fetch("SELECT status FROM ledger_00.holds WHERE id = $1", due)
            return bool(row[0] == 3)

        await until(is_written, within_s=20.0)


async def test_a_group_expires_a_limited_number_of_holds(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(
        Limits(open_holds_max=2, group_expiries_max=3, expiry_sweep_s=3_600.0)
    )
    payers = [await api.wallet(10) for _ in range(4)]
    bob = await api.wallet()
    holds = [await api.hold(payer, 4, expires_in_s=1) for payer in payers for _ in range(2)]
    assert statuses(holds) == {201: 8}

    async def are_due() -> bool:
        return (await api.money(payers[-1]))[1] == 0

    await until(are_due)
    transfers = [
        {"source_wallet_id": payer, "destination_wallet_id": bob, "amount": 10, "currency": "USD"}
        for payer in payers
    ]
    paid = await api.post(
        "/transfers/batch", {"mode": "atomic", "transfers": transfers}, key="all of it"
    )
    assert paid.status == 200, paid
    assert await api.balance(bob) == 40
    assert await faults_in(database) == []


@pytest.mark.needs_configuration(
    "read committed", why="a wait for a changed row ends with a conflict, and the group is repeated"
)
@pytest.mark.parametrize("locks", ["wallets and holds", "wallets"])
async def test_a_hold_is_read_as_it_is_after_the_wait_for_its_wallet(
    locks: str, api: Api, database: Database
) -> None:
    ada = await api.wallet(100)
    id = (await api.hold(ada, 10)).json["id"]
    sql = query(database.ledger.schema, "lock_and_look_up")
    if locks == "wallets":
        sql = sql.replace("FROM locked))\n    FOR NO KEY UPDATE", "FROM locked))")
    url = await home_url(database)
    one, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        async with other.transaction():
            await other.execute(
                database.in_ledger("UPDATE ledger_00.wallets SET held = 7 WHERE id = $1"), ada
            )
            await other.execute(
                database.in_ledger("UPDATE ledger_00.holds SET amount = 7 WHERE id = $1"), id
            )
            locking = asyncio.create_task(one.fetch(sql, [ada], [id], "{}", []))
            await until_waiting(database, one.get_server_pid())
        wallet, hold, _ = await locking
    finally:
        await one.close()
        await other.close()
    assert wallet["held"] == 7
    amount_minor = locked_hold_of(hold).amount_minor
    # What the lock of the holds prevents.
    assert amount_minor == (7 if locks == "wallets and holds" else 10)


async def test_a_hold_is_not_locked_without_its_wallet(api: Api, database: Database) -> None:
    """Otherwise a group that gets the wallet a moment later would skip the hold, as if unknown."""
    ada = await api.wallet(100)
    id = (await api.hold(ada, 10)).json["id"]
    url = database.servers.database_url(database.name, superuser=True)
    one, other = await asyncpg.connect(url), await asyncpg.connect(url)
    skipping = query(database.ledger.schema, "lock_and_look_up_skipping")
    try:
        async with held_rows(database, ada), one.transaction():
            [_] = await one.fetch(skipping, [ada], [id], "{}", [])
            await other.fetch(
                database.in_ledger("SELECT FROM ledger_00.holds WHERE id = $1 FOR UPDATE NOWAIT"),
                id,
            )
        async with one.transaction():
            wallet, hold, _ = await one.fetch(skipping, [ada], [id], "{}", [])
            assert (wallet["id"], hold["id"]) == (ada, id)
    finally:
        await one.close()
        await other.close()
