"""Answers about the past are final: readers wait only for writers with an earlier time."""

import asyncio
from datetime import timedelta

import jsonschema_rs

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import time_of
from tests.support.past import at, clock_of, entries, text_of, unfinished_change
from tests.support.pressure import crowd, held_rows, statuses, until_sessions_wait
from transferd.config import Limits

# A deadline that a test can wait for. The waits still nest.
_IMPATIENT = Limits(
    request_deadline_s=3.0,
    mailbox_wait_s=1.0,
    statement_timeout_s=0.9,
    idle_in_transaction_timeout_s=0.8,
    lock_timeout_s=0.7,
    relay_publish_timeout_s=0.5,
    command_timeout_s=1.5,
)


async def test_an_instant_and_the_end_of_a_window_wait_for_the_writer_with_an_earlier_time(
    api: Api, database: Database
) -> None:
    ada = await api.wallet(100)
    async with unfinished_change(database, ada) as later:
        instant = asyncio.create_task(at(api, ada, later))
        window = asyncio.create_task(entries(api, ada, f"to={text_of(later)}"))
        # Both readers share one lock.
        await until_sessions_wait(database, 1)
        assert not instant.done()
        assert not window.done()
    reply = await instant
    assert (reply.status, reply.json["version"], reply.json["overdraft_limit"]) == (200, 2, 7)
    assert (await at(api, ada, later)).body == reply.body
    assert [entry["version"] for entry in await window] == [2, 1]


async def test_an_instant_before_a_later_change_is_read_without_waiting(
    api: Api, database: Database
) -> None:
    ada = await api.wallet(100)
    then = (await api.get(f"/wallets/{ada}")).json
    await api.transfer(ada, await api.wallet(), 1)
    latest = (await api.get(f"/wallets/{ada}")).json["updated_at"]
    async with held_rows(database, ada):
        reply = await at(api, ada, latest)
        assert (reply.status, reply.json["version"]) == (200, then["version"])
        window = await entries(api, ada, f"to={latest}")
        assert [entry["version"] for entry in window] == [1]


async def test_the_beginning_of_a_window_waits_for_no_writer(api: Api, database: Database) -> None:
    ada = await api.wallet(100)
    async with unfinished_change(database, ada) as later:
        assert await entries(api, ada, f"from={text_of(later)}") == []
        assert [e["version"] for e in await entries(api, ada, "from=2020-01-01T00:00:00Z")] == [1]
    assert await entries(api, ada, f"from={text_of(later)}") == []


async def test_readers_of_a_wallet_share_a_lock(api: Api, database: Database) -> None:
    ada = await api.wallet(100)
    async with unfinished_change(database, ada) as later:
        reads = [asyncio.create_task(at(api, ada, later)) for _ in range(50)]
        await until_sessions_wait(database, 1)
        # One session waits and all other reads have their connections.
        assert await api.balance(ada) == 100
        assert (await at(api, await api.wallet(), later)).status == 404
        await until_sessions_wait(database, 1)
    replies = await asyncio.gather(*reads)
    assert {(reply.status, reply.json["version"]) for reply in replies} == {(200, 2)}


async def test_a_wallet_that_stays_locked_is_given_up_before_the_deadline_and_alone(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(_IMPATIENT)
    ada, bob, cy = await api.wallet(100), await api.wallet(100), await api.wallet()
    now = await clock_of(database)
    async with held_rows(database, ada):
        path = f"/wallets/{ada}?at={text_of(now)}"
        reads = [asyncio.create_task(api.get(path)) for _ in range(20)]
        await until_sessions_wait(database, 1)
        # Other wallets are read and written meanwhile, also at an instant.
        assert (await at(api, bob, now)).json["balance"] == 100
        assert (await api.transfer(bob, cy, 1)).status == 201
        assert await api.balance(ada) == 100
        for reply in await asyncio.gather(*reads):
            assert (reply.status, reply.code) == (503, "overloaded")
            assert reply.headers["Retry-After"] == "1"
    assert (await at(api, ada, now)).json["balance"] == 100
    # The abandoned lock is released.
    assert (await api.transfer(ada, cy, 1)).status == 201


async def test_many_readers_of_many_wallets_leave_connections_to_other_reads(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(read_connections=6)
    api = await replicas.start(limits)
    wallets = [await api.wallet(1) for _ in range(10)]
    now = await clock_of(database)
    async with held_rows(database, *wallets):
        reads = [asyncio.create_task(at(api, wallet, now)) for wallet in wallets * 20]
        await until_sessions_wait(database, limits.settling_locks_max)
        assert [await api.balance(wallet) for wallet in wallets] == [1] * 10
    assert statuses(await asyncio.gather(*reads)) == {200: 200}


async def test_a_reader_at_an_instant_does_not_hold_the_row(api: Api, database: Database) -> None:
    ada = await api.wallet(100)
    now = await clock_of(database)
    assert (await at(api, ada, now)).status == 200
    [row] = await database.fetch(
        "SELECT count(*) FROM ledger_00.wallets WHERE id = $1::text::uuid", ada
    )
    # The row can be locked at once, and no session is left in a transaction.
    await database.fetch(
        "SELECT FROM ledger_00.wallets WHERE id = $1::text::uuid FOR UPDATE NOWAIT", ada
    )
    [row] = await database.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'transferd' AND state LIKE 'idle in transaction%'"
    )
    assert row[0] == 0


async def test_an_instant_in_the_future_is_refused_with_the_time_of_the_clock(
    api: Api, database: Database
) -> None:
    ada = await api.wallet(100)
    future = text_of(await clock_of(database) + timedelta(seconds=60))
    for path, pointer in (
        (f"/wallets/{ada}?at={future}", "/at"),
        (f"/wallets/{ada}?at=9999-12-31T23:59:59Z", "/at"),
        (f"/wallets/{ada}/statement?to={future}", "/to"),
        (f"/wallets/{ada}/statement?from=2020-01-01T00:00:00Z&to={future}", "/to"),
    ):
        before = await clock_of(database)
        refused = await api.get(path)
        after = await clock_of(database)
        assert (refused.status, refused.code) == (422, "invalid-request")
        [error] = refused.json["errors"]
        assert (error["pointer"], error["code"]) == (pointer, "in_the_future")
        assert before < time_of(refused.json["now"]) < after
        # The time in the problem is a valid instant at once.
        name = pointer[1:]
        now = refused.json["now"]
        again = await api.get(f"{path.partition('?')[0]}?{name}={now}")
        assert again.status == 200
    # A window may begin there: it is empty until then.
    assert await entries(api, ada, f"from={future}") == []


async def test_times_of_a_wallet_do_not_decrease_when_the_clock_is_set_back(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    # As if the wallet had changed just before the clock was set back by an hour.
    ahead = await clock_of(database) + timedelta(hours=1)
    await database.fetch(
        "UPDATE ledger_00.wallets SET updated_at = $2 WHERE id = $1::text::uuid", ada, ahead
    )
    await database.fetch(
        "UPDATE ledger_00.transfers SET created_at = $2"
        " WHERE destination_wallet_id = $1::text::uuid",
        ada,
        ahead,
    )
    before = await at(api, ada, ahead)
    assert (before.status, before.json["balance"]) == (200, 0)
    paid = (await api.transfer(ada, bob, 1)).json
    frozen = (await api.post(f"/wallets/{ada}/freeze")).json
    assert {time_of(paid["created_at"]), time_of(frozen["updated_at"])} == {ahead}
    assert (await at(api, ada, ahead)).body == before.body
    # The other wallet has the later time too, so the instant is settled there as well.
    assert (await at(api, bob, ahead)).json["version"] == 0
    assert (await api.get(f"/wallets/{bob}")).json["updated_at"] == text_of(ahead)
    beyond = await at(api, ada, ahead + timedelta(microseconds=1))
    assert (beyond.status, beyond.code) == (422, "invalid-request")
    assert time_of(beyond.json["now"]) < ahead


async def test_changes_of_one_moment_are_before_or_after_an_instant_together(api: Api) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    assert statuses(await crowd(api.transfer(ada, bob, 1) for _ in range(300))) == {201: 300}
    whole = await entries(api, ada)
    times = [entry["created_at"] for entry in whole]
    assert len(set(times)) < len(times), "no group had two of them"
    for instant in sorted(set(times)):
        then = await at(api, ada, instant)
        earlier = [entry for entry in whole if entry["created_at"] < instant]
        if not earlier:
            # The wallet was created at that moment.
            assert then.code == "wallet-not-found"
            continue
        newest = earlier[0]
        assert (then.json["version"], then.json["balance"], then.json["updated_at"]) == (
            newest["version"],
            newest["balance_after"],
            newest["created_at"],
        )
        assert await entries(api, ada, f"to={instant}") == earlier
        assert await entries(api, ada, f"from={instant}") == whole[: len(whole) - len(earlier)]


async def test_pages_of_a_window_agree_while_the_wallet_changes(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    for _ in range(7):
        await api.transfer(ada, bob, 1)
    path = f"/wallets/{ada}/statement?limit=2&to={text_of(await clock_of(database))}"
    seen, cursor = [], ""
    while True:
        page = (await api.get(path + cursor)).json
        seen += [entry["version"] for entry in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
        await api.transfer(ada, bob, 1)
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1]


async def test_a_statement_goes_on_after_a_version(api: Api, database: Database) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    for _ in range(5):
        await api.transfer(ada, bob, 1)

    async def versions(query: str) -> list[int]:
        return [entry["version"] for entry in await entries(api, ada, query)]

    assert await versions("after_version=0") == [6, 5, 4, 3, 2, 1]
    assert await versions("after_version=4") == [6, 5]
    assert await versions("after_version=6") == []
    first = (await api.get(f"/wallets/{ada}/statement?after_version=2&limit=3")).json
    assert [entry["version"] for entry in first["data"]] == [6, 5, 4]
    last = await api.get(
        f"/wallets/{ada}/statement?after_version=2&limit=3&cursor={first['next_cursor']}"
    )
    assert [entry["version"] for entry in last.json["data"]] == [3]
    # Every condition counts.
    whole = {entry["version"]: entry["created_at"] for entry in await entries(api, ada)}
    assert await versions(f"after_version=2&to={whole[5]}") == [4, 3]
    assert await versions(f"after_version=2&from={whole[2]}") == [6, 5, 4, 3]
    assert await versions(f"after_version=2&from={whole[4]}") == [6, 5, 4]
    assert await versions(f"after_version=5&to={whole[3]}") == []
    for query in ("after_version=7", f"after_version=7&to={whole[3]}"):
        ahead = await api.get(f"/wallets/{ada}/statement?{query}")
        assert (ahead.status, ahead.code, ahead.json["version"]) == (412, "version-not-reached", 6)
    for wrong in ("-1", "1.0", "x", str(2**63)):
        refused = await api.get(f"/wallets/{ada}/statement?after_version={wrong}")
        assert refused.json["errors"][0]["pointer"] == "/after_version", wrong


async def test_an_answer_about_an_instant_has_only_fields_with_a_history(api: Api) -> None:
    ada = await api.wallet(100, metadata={"name": "ada"})
    await api.post(f"/wallets/{ada}/freeze")
    frozen = (await api.get(f"/wallets/{ada}")).json
    then = await at(api, ada, frozen["updated_at"])
    await api.patch(f"/wallets/{ada}", {"metadata": {"name": "eve"}})
    assert (await at(api, ada, frozen["updated_at"])).body == then.body
    assert list(then.json) == [name for name in frozen if name != "metadata"]
    document = (await api.get("/openapi.json")).json
    answers = document["components"]["schemas"]
    jsonschema_rs.validate(
        {**answers["PastWallet"], "components": document["components"]}, then.json
    )
    assert set(answers["PastWallet"]["required"]) == set(then.json)
    # As a current wallet it would lack metadata.
    assert set(answers["Wallet"]["required"]) == set(frozen)
    assert then.json["status"] == "active"
    assert (await api.get(f"/wallets/{ada}")).json["metadata"] == {"name": "eve"}
