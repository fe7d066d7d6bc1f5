"""Event streams: each event of a wallet once and in order, also after the client resumes."""

import asyncio

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, assert_invalid, time_of
from tests.support.events import following, versions
from tests.support.outbox import events_in
from transferd.config import Limits

_QUICK = Limits(stream_poll_s=0.02)


async def story(api: Api) -> tuple[str, str, list[str]]:
    """A wallet with one change of each kind, its partner, and the types of all its events."""
    ada, bob = await api.wallet(1_000), await api.wallet()
    sent = await api.transfer(ada, bob, 300, reference="rent", metadata={"text": "a\nb\r\u2028"})
    await api.post(f"/transfers/{sent.json['id']}/reversal", {"amount": 100}, key="back")
    await api.post(f"/wallets/{ada}/freeze")
    await api.post(f"/wallets/{ada}/unfreeze")
    await api.patch(f"/wallets/{ada}", {"metadata": {"name": "ada"}})
    await api.transfer(ada, bob, 800)
    await api.post(f"/wallets/{ada}/close")
    posted = "transfer.posted"
    changed = ["wallet.frozen", "wallet.unfrozen", "wallet.updated"]
    return ada, bob, [posted, posted, "transfer.reversed", *changed, posted, "wallet.closed"]


async def test_a_stream_sends_the_events_of_the_outbox(api: Api, database: Database) -> None:
    ada, _, types = await story(api)
    async with following(api, ada, last=0) as stream:
        assert stream.status == 200
        events = await stream.events(len(types))
    stored = {event["id"]: event for event in await events_in(database)}
    for version, (event, type) in enumerate(zip(events, types, strict=True), start=1):
        assert [name for name, _ in event.fields] == ["id", "event", "data"]
        assert (event.version, event["event"]) == (version, type)
        cloud_event = event.cloud_event
        assert list(cloud_event) == [
            *("specversion", "id", "source", "type", "subject", "time", "datacontenttype"),
            *("ledger", "data"),
        ]
        assert (cloud_event["specversion"], cloud_event["type"]) == ("1.0", type)
        assert cloud_event["ledger"] == database.ledger.name
        time_of(cloud_event["time"])
        sent = stored[cloud_event["id"]]
        assert {name: sent[name] for name in ("type", "time", "data")} == {
            name: cloud_event[name] for name in ("type", "time", "data")
        }
    assert events[1].cloud_event["data"]["metadata"] == {"text": "a\nb\r\u2028"}


async def test_a_stream_begins_with_its_position_and_its_media_type(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    await api.transfer(ada, bob, 1)
    traced = {"X-Request-Id": "mine", "traceparent": f"00-{'4b' * 16}-{'0f' * 8}-01"}
    api.headers = traced
    async with following(api, ada) as stream:
        assert {name: stream.headers[name] for name in traced} == traced
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-store"
        assert stream.headers["X-Accel-Buffering"] == "no"
        assert stream.opening.comments == ["the wallet is at version 2"]
        assert stream.opening.fields == [("retry", "2000"), ("id", "2")]
        # Earlier events are sent only to a client that asks for them.
        await api.transfer(ada, bob, 1)
        assert (await stream.event()).version == 3
    async with following(api, ada, last=1) as stream:
        assert stream.opening.comments == ["the wallet is at version 3"]
        assert stream.opening.fields == [("retry", "2000"), ("id", "1")]


@pytest.mark.parametrize("page_events", [1, 7, 200])
async def test_events_come_in_order_while_transfers_run(
    page_events: int, replicas: Replicas
) -> None:
    limits = Limits(stream_poll_s=0.02, stream_page_events=page_events, stream_reads_max=1)
    api, other = await replicas.start(limits), await replicas.start(limits)
    ada, bob = await api.wallet(1_000), await api.wallet(1_000)

    async def pay(replica: Api, source: str, destination: str) -> None:
        for n in range(20):
            await replica.transfer(source, destination, 1)
            if n % 5 == 4:
                verb = "freeze" if n % 2 else "unfreeze"
                await replica.post(f"/wallets/{destination}/{verb}")
                await replica.post(f"/wallets/{destination}/unfreeze")

    async with following(api, ada) as here, following(other, ada) as there:
        assert here.start_version == there.start_version == 1
        await asyncio.gather(
            *(pay(api, ada, bob) for _ in range(3)), *(pay(other, bob, ada) for _ in range(3))
        )
        last = (await api.get(f"/wallets/{ada}")).json["version"]
        seen = [await stream.until_version(last) for stream in (here, there)]
    for events in seen:
        assert versions(events) == list(range(2, last + 1))
    assert [event.fields for event in seen[0]] == [event.fields for event in seen[1]]


async def test_a_resumed_stream_loses_and_repeats_no_event(replicas: Replicas) -> None:
    apis = [await replicas.start(_QUICK) for _ in range(2)]
    ada, bob = await apis[0].wallet(1_000), await apis[0].wallet()

    async def pay() -> None:
        for _ in range(120):
            await apis[0].transfer(ada, bob, 1)

    paying = asyncio.create_task(pay())
    seen: list[int] = []
    last = 0
    # Each replica in turn sends none to three events.
    for turn in range(24):
        async with following(apis[turn % 2], ada, last=last) as stream:
            assert stream.start_version == last
            seen += versions(await stream.events(turn % 4))
        last = seen[-1] if seen else last
    await paying
    async with following(apis[1], ada, last=last) as stream:
        seen += versions(await stream.until_version(121))
    assert seen == list(range(1, 122))


async def test_a_stream_cut_before_its_first_event_resumes_at_its_beginning(
    api: Api,
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    async with following(api, ada) as stream:
        began = stream.start_version
    await api.transfer(ada, bob, 1)
    async with following(api, ada, last=began) as stream:
        assert (await stream.event()).version == began + 1


async def test_no_event_is_sent_past_a_missing_version(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(Limits(stream_poll_s=0.02, stream_heartbeat_s=0.1))
    ada, _, types = await story(api)
    # As if a commit came between the reads of the two tables.
    where = "WHERE wallet_id = $1::uuid AND version = 4"
    await database.fetch("CREATE TABLE unseen AS TABLE ledger_00.wallet_changes WITH NO DATA")
    await database.fetch(
        f"WITH gone AS (DELETE FROM ledger_00.wallet_changes {where} RETURNING *)"
        " INSERT INTO unseen SELECT * FROM gone",
        ada,
    )
    async with following(api, ada, last=0) as stream:
        assert versions(await stream.events(3)) == [1, 2, 3]
        # It waits through several polls.
        for _ in range(3):
            block = await stream.block()
            assert block is not None
            assert (block.fields, block.comments) == ([], ["heartbeat"])
        await database.fetch("INSERT INTO ledger_00.wallet_changes SELECT * FROM unseen")
        assert versions(await stream.events(len(types) - 3)) == [4, 5, 6, 7, 8]


async def test_only_the_id_of_an_event_may_be_the_last_one(
    api: Api, subtests: pytest.Subtests
) -> None:
    ada = await api.wallet()
    for last in ("", "x", "-1", "+1", "1.0", "01", "1 1", "٣", "0x1", str(2**63), "9" * 400):
        with subtests.test(last=last):
            for wallet in (ada, UNKNOWN_ID):
                refused = await api.get(f"/wallets/{wallet}/events", {"Last-Event-ID": last})
                assert_invalid(refused, "/Last-Event-ID")


async def test_a_last_event_id_ahead_of_the_wallet_is_refused(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    await api.transfer(ada, bob, 1)
    for last in (3, 50, 2**63 - 1):
        headers = {"Last-Event-ID": str(last)}
        assert (await api.call("HEAD", f"/wallets/{ada}/events", headers=headers)).status == 412
        refused = await api.get(f"/wallets/{ada}/events", headers)
        assert (refused.status, refused.code) == (412, "version-not-reached")
        assert refused.json["version"] == 2
    async with following(api, ada, last=2) as stream:
        await api.transfer(ada, bob, 1)
        assert (await stream.event()).version == 3


async def test_a_stream_ends_when_the_version_of_its_wallet_decreases(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(_QUICK)
    ada, bob = await api.wallet(100), await api.wallet()
    for _ in range(4):
        await api.transfer(ada, bob, 1)
    async with following(api, ada) as stream, following(api, bob, last=0) as other:
        assert stream.start_version == 5
        await other.events(4)
        # As after a restore to an earlier time.
        await database.fetch("UPDATE ledger_00.wallets SET version = 3 WHERE id = $1::uuid", ada)
        assert await stream.rest() == []
        # Its client resumes at its last version and is refused: it is ahead of the wallet.
        again = await api.get(
            f"/wallets/{ada}/events", {"Last-Event-ID": str(stream.start_version)}
        )
        assert (again.code, again.json["version"]) == ("version-not-reached", 3)
        # Other streams continue.
        await api.transfer(await api.wallet(5), bob, 1)
        assert (await other.event()).version == 5
    async with following(api, bob) as stream:
        await database.fetch("DELETE FROM ledger_00.transfers")
        await database.fetch("DELETE FROM ledger_00.wallet_changes")
        await database.fetch("DELETE FROM ledger_00.wallets WHERE id = $1::uuid", bob)
        assert await stream.rest() == []
    assert (await api.get(f"/wallets/{bob}/events")).code == "wallet-not-found"
