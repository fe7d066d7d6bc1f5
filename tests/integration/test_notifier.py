"""The notifier over RabbitMQ: which endpoints get an event, the order, the retries, the log."""

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from tests.support.endpoints import (
    SECRET,
    delete_webhook,
    deliveries,
    letters,
    new_webhook,
    rotate_webhook,
    update_webhook,
)
from tests.support.notifying import QUICK, Scene, backlog_of, has_received
from tests.support.outbox import TRACEPARENT, transfer_event, wallet_event
from tests.support.queues import publish, take, topology_of
from tests.support.receivers import after, in_turn, status
from tests.support.waiting import patient_s, until
from transferd.commit.events import CLOUD_EVENT, cloud_event
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus, WebhookStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.dead_letters import Filter
from transferd.ledger.store.deliveries import (
    EventText,
    NewDelivery,
    insert_deliveries,
    read_waiting,
)
from transferd.ledger.store.webhooks import read_webhook
from transferd.notifications.broker import TransportFailure
from transferd.notifications.dead_letters import redrive
from transferd.notifications.rabbit import RabbitBroker
from transferd.notifications.wakeups import decode_wakeup, encode_wakeup
from transferd.observability.facts import NotifierFailed

# Endpoints


async def test_an_event_reaches_a_webhook_signed_and_unchanged(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    await scene.start()
    event = transfer_event()
    await scene.put(event)
    await until(has_received(receiver, 1))
    [request] = receiver.received
    assert request.body == cloud_event(event, scene.database.ledger.name)
    assert request.headers["content-type"] == CLOUD_EVENT
    assert request.headers["traceparent"] == TRACEPARENT
    assert request.event_id == event["id"]
    assert Verifier(SECRET).verify(request.body.decode(), request.headers) == request.json
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert scene.results(webhook) == {"delivered": 1}


async def test_an_event_is_signed_with_every_valid_secret(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    secrets = [SECRET, *("whsec_" + letter * 32 for letter in "abc")]
    await scene.start()
    for count, secret in enumerate(secrets, 1):
        if count > 1:
            await rotate_webhook(scene.database, webhook, secret)
        await scene.put(transfer_event())
        await until(has_received(receiver, count))
        request = receiver.received[-1]
        assert len(request.headers["webhook-signature"].split(" ")) == count
        for good in secrets[:count]:
            Verifier(good).verify(request.body.decode(), request.headers)


async def test_each_endpoint_gets_the_events_of_its_types_and_wallet(scene: Scene) -> None:
    ada, bob, cy = new_id(MAIN), new_id(MAIN), new_id(MAIN)
    transfer = transfer_event(ada, bob)
    reversal = transfer_event(bob, cy, type="transfer.reversed")
    frozen = wallet_event(ada)
    user = transfer_event(type="user.created", data={"id": new_id(MAIN), "name": "Ada"})
    last = wallet_event(ada, "wallet.closed", version=8)
    expected = [
        (await scene.receiver(), [transfer, reversal, frozen, user, last]),
        (await scene.receiver("transfer.*", "wallet.closed"), [transfer, reversal, last]),
        (await scene.receiver("wallet.*"), [frozen, last]),
        (await scene.receiver("user.created", "wallet.closed"), [user, last]),
        (await scene.receiver(wallet=ada), [transfer, frozen, last]),
        (await scene.receiver("transfer.posted", wallet=bob), [transfer]),
        (await scene.receiver("wallet.updated"), []),
    ]
    await scene.start()
    await scene.put(transfer, reversal, frozen, user, last)
    for (receiver, _), events in expected:
        await until(has_received(receiver, len(events)))
    for (receiver, webhook), events in expected:
        for event in events:
            await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
        assert Counter(receiver.event_ids()) == Counter(event["id"] for event in events)


# Order and limits


async def test_events_of_one_wallet_are_sequential_and_wallets_are_concurrent(
    scene: Scene,
) -> None:
    receiver, webhook = await scene.receiver()
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    order: defaultdict[str, list[str]] = defaultdict(list)

    async def answer(request: web.Request) -> web.StreamResponse:
        event = orjson.loads(await request.read())
        wallet = event["data"]["source_wallet_id"]
        now[wallet] += 1
        most[wallet] = max(most[wallet], now[wallet])
        order[wallet].append(event["id"])
        # Later requests are answered sooner, so a request that does not wait overtakes.
        await asyncio.sleep(0.03 / len(order[wallet]))
        now[wallet] -= 1
        return web.Response(status=204)

    receiver.answer = answer
    wallets = [new_id(MAIN) for _ in range(6)]
    events = [transfer_event(wallets[number % 6]) for number in range(60)]
    await scene.start(replace(QUICK, endpoint_in_flight_max=3))
    await scene.put(*events)
    await until(has_received(receiver, 60))
    await scene.ends(webhook, events[-1], DeliveryStatus.DELIVERED)
    for number, wallet in enumerate(wallets):
        assert order[wallet] == [event["id"] for event in events[number::6]]
        assert most[wallet] == 1
    assert receiver.most_in_progress == 3


async def test_a_slow_endpoint_delays_no_other_and_loses_nothing(scene: Scene) -> None:
    slow, slow_webhook = await scene.receiver()
    quick, quick_webhook = await scene.receiver()
    released = asyncio.Event()
    slow.answer = after(released)
    events = [transfer_event() for _ in range(60)]
    # The notifier may hold fewer deliveries than there are events.
    await scene.start(
        replace(QUICK, notify_held_max=20, endpoint_in_flight_max=2, endpoint_held_max=4)
    )
    await scene.put(*events)
    await until(has_received(quick, 60))
    assert len(slow.received) == slow.in_progress == 2
    await until(lambda: scene.results(quick_webhook)["delivered"] == 60)
    # Deliveries to the slow endpoint wait in the table and have not been attempted.
    assert scene.results(slow_webhook) == {}
    waiting = await deliveries(scene.database, slow_webhook)
    assert {(each.status, each.attempts) for each in waiting.values()} == {
        (DeliveryStatus.PENDING, 0)
    }
    released.set()
    await until(lambda: scene.results(slow_webhook)["delivered"] == 60)
    assert slow.event_ids()[:2] == [event["id"] for event in events[:2]]
    assert Counter(slow.event_ids()) == Counter(event["id"] for event in events)
    for found in (await deliveries(scene.database, slow_webhook)).values():
        assert (found.status, found.attempts) == (DeliveryStatus.DELIVERED, 1)
    assert slow.most_in_progress == 2


async def test_deliveries_that_wait_in_the_table_keep_the_order_of_each_wallet(
    scene: Scene,
) -> None:
    receiver, webhook = await scene.receiver()
    wallets = [new_id(MAIN) for _ in range(3)]
    events = [transfer_event(wallets[number % 3]) for number in range(90)]
    # Many more events than are held at a time, in many rows of the outbox.
    await scene.start(replace(QUICK, endpoint_held_max=4, relay_batch_events_max=10))
    for first in range(0, 90, 5):
        await scene.put(*events[first : first + 5])
    await until(lambda: scene.results(webhook)["delivered"] == 90)
    arrived = receiver.event_ids()
    assert Counter(arrived) == Counter(event["id"] for event in events)
    for wallet in wallets:
        ids = [event["id"] for event in events if event["data"]["source_wallet_id"] == wallet]
        assert [id for id in arrived if id in set(ids)] == ids


async def test_the_pause_of_a_failing_endpoint_grows_up_to_a_limit(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    pauses_s = (0.2, 0.4, 0.5, 0.5)
    limits = replace(
        QUICK, endpoint_in_flight_max=1, endpoint_pause_first_s=0.2, endpoint_pause_max_s=0.5
    )
    await scene.start(limits, notify_retry_delays_s="600")
    await scene.put(*(transfer_event() for _ in range(1 + len(pauses_s))))
    await until(has_received(receiver, 1 + len(pauses_s)))
    times = [request.at_s for request in receiver.received]
    for pause_s, (sooner, later) in zip(pauses_s, pairwise(times), strict=True):
        assert later - sooner > pause_s - 0.03, times
    receiver.answer = None
    last = transfer_event()
    await scene.put(last)
    await scene.ends(webhook, last, DeliveryStatus.DELIVERED)


async def test_a_delivery_that_is_read_while_a_pause_begins_overtakes_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, webhook = await scene.receiver()
    ada = new_id(MAIN)
    first, second, third = (transfer_event(ada) for _ in range(3))
    released, is_read, may_go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    receiver.answer = in_turn(after(released, status(500)), status(204), status(204))
    may_go_on.set()

    async def held_up(*arguments: Any) -> Any:
        found = await read_waiting(*arguments)
        is_read.set()
        await may_go_on.wait()
        return found

    monkeypatch.setattr("transferd.notifications.notifier.read_waiting", held_up)
    limits = replace(QUICK, endpoint_in_flight_max=1, endpoint_pause_first_s=0.2)
    await scene.start(limits, notify_retry_delays_s="600")
    await scene.put(first, second)
    await until(has_received(receiver, 1))
    may_go_on.clear()
    is_read.clear()
    await scene.put(third)
    await asyncio.wait_for(is_read.wait(), patient_s(10))
    # The first fails, so the lane pauses and puts the second back; the third was read before.
    released.set()
    await scene.ends(webhook, first, DeliveryStatus.RETRYING)
    may_go_on.set()
    await scene.ends(webhook, third, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"] for event in (first, second, third)]


async def test_a_worker_stops_even_if_its_cancellation_looks_like_a_lost_connection(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_connecting = asyncio.Event()

    async def consume(*_: object, **__: object) -> None:
        is_first = not is_connecting.is_set()
        is_connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            if is_first:
                raise TransportFailure("the channel was closed") from error
            raise

    monkeypatch.setattr(RabbitBroker, "consume", consume)
    async with scene.working():
        await asyncio.wait_for(is_connecting.wait(), patient_s(10))
    # Without the protection the block would wait for the consumer without end.
    failures = [fact.error for fact in scene.facts if isinstance(fact, NotifierFailed)]
    assert [str(error) for error in failures] == ["the channel was closed"]


# Failures


async def test_retries_wait_longer_each_time_and_end_as_a_dead_letter(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.1,0.3,0.5")
    await scene.put(event)
    await until(has_received(receiver, 4))
    waits_s = [later.at_s - sooner.at_s for sooner, later in pairwise(receiver.received)]
    for wait_s, least_s in zip(waits_s, (0.1, 0.3, 0.5), strict=True):
        assert wait_s > least_s - 0.03, waits_s
    await scene.has_letters(1)
    [letter] = await letters(scene.database)
    assert (letter.endpoint, letter.event) == (webhook, event["id"])
    assert (letter.reason, letter.detail) == ("attempts exhausted", "answered 500")
    assert (letter.attempts, letter.body) == (4, cloud_event(event, scene.database.ledger.name))
    assert {request.body for request in receiver.received} == {letter.body}
    found = (await deliveries(scene.database, webhook))[event["id"]]
    assert (found.status, found.attempts) == (DeliveryStatus.DEAD, 4)
    await until(lambda: scene.results(webhook) == {"retrying": 3, "dead": 1})


async def test_a_retry_waits_as_a_message_that_names_its_endpoint(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    other, _ = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.05,0.05,600")
    await scene.put(event)
    await until(has_received(receiver, 3))

    async def one_waits() -> bool:
        return await scene.waiting(600.0) == 1

    await until(one_waits)
    assert scene.settings is not None
    queue = topology_of(scene.settings).retry_queue(600.0)
    [message] = await take(scene.settings, queue, 1)
    assert decode_wakeup(message.body) == (scene.database.ledger.number, [webhook])
    # A retry is only for the endpoint that failed.
    assert other.event_ids() == [event["id"]]


async def test_a_surplus_message_does_nothing(scene: Scene) -> None:
    receiver, webhook = await scene.receiver("transfer.posted")
    marker, _ = await scene.receiver("wallet.frozen")
    receiver.answer = status(500)
    event, delivered = transfer_event(), transfer_event()
    await scene.start(notify_retry_delays_s="600")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.RETRYING)
    receiver.answer = None
    await scene.put(delivered)
    await scene.ends(webhook, delivered, DeliveryStatus.DELIVERED)
    assert scene.settings is not None
    ledger = scene.database.ledger
    surplus = encode_wakeup(ledger.number, [webhook, new_id(MAIN)])
    await publish(scene.settings, topology_of(scene.settings).work_queue(ledger.number), surplus)
    await scene.put(wallet_event())
    await until(has_received(marker, 1))
    assert len(receiver.received) == 2
    found = (await deliveries(scene.database, webhook))[event["id"]]
    assert (found.status, found.attempts) == (DeliveryStatus.RETRYING, 1)


async def test_a_sweep_finds_a_row_without_a_message(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    await scene.start(replace(QUICK, delivery_sweep_interval_s=0.1), notify_retry_delays_s="600")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.RETRYING)
    assert scene.settings is not None
    await take(scene.settings, topology_of(scene.settings).retry_queue(600.0), 1)
    receiver.answer = None
    await scene.database.fetch("UPDATE ledger_00.deliveries SET next_attempt_at = now()")
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert len(receiver.received) == 2


async def test_a_receiver_may_ask_for_a_longer_wait(scene: Scene) -> None:
    asked = {"0": 5.0, "4": 5.0, "6": 60.0, "60": 60.0, "61": 600.0, "99999": 600.0, "soon": 5.0}
    webhooks = {}
    for value in asked:
        receiver, webhooks[value] = await scene.receiver()
        receiver.answer = status(503, **{"Retry-After": value})
    event = transfer_event()
    await scene.start(notify_retry_delays_s="5,60,600")
    await scene.put(event)
    for value, wait_s in asked.items():
        await scene.ends(webhooks[value], event, DeliveryStatus.RETRYING)
        found = (await deliveries(scene.database, webhooks[value]))[event["id"]]
        assert found.wait_s == wait_s, value

    async def all_wait() -> bool:
        # The messages leave after the rows are written. Those of 5 s may have expired by now.
        return all([await scene.waiting(delay_s) for delay_s in (60.0, 600.0)])

    await until(all_wait)


async def test_the_delivery_log_records_each_attempt(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    released = asyncio.Event()
    receiver.answer = in_turn(status(500), after(released, status(200)))
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.4")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.RETRYING)
    failed = (await deliveries(scene.database, webhook))[event["id"]]
    assert (failed.attempts, failed.response_status) == (1, 500)
    assert (failed.error, failed.response_excerpt) == ("answered 500", "answer 500")
    assert failed.wait_s == 0.4
    assert failed.event_type == "transfer.posted"
    assert failed.event == cloud_event(event, scene.database.ledger.name).decode()
    await until(has_received(receiver, 2))
    released.set()
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    delivered = (await deliveries(scene.database, webhook))[event["id"]]
    assert (delivered.attempts, delivered.response_status) == (2, 200)
    assert (delivered.error, delivered.response_excerpt) == (None, "answer 200")
    assert delivered.next_attempt_at is None
    assert delivered.created_at == failed.created_at
    assert delivered.updated_at > failed.updated_at


async def test_an_error_of_the_service_is_a_failed_attempt(scene: Scene) -> None:
    receiver, good = await scene.receiver()
    broken = await new_webhook(scene.database, receiver.url, secret="whsec_no base64")
    event = transfer_event()
    async with scene.working(notify_retry_delays_s="0.05"):
        await scene.put(event)
        await scene.ends(good, event, DeliveryStatus.DELIVERED)
        await scene.ends(broken, event, DeliveryStatus.DEAD)
    found = (await deliveries(scene.database, broken))[event["id"]]
    assert found.attempts == 2
    assert found.error is not None
    assert "no base64" not in found.error
    assert receiver.event_ids() == [event["id"]]
    assert await scene.unfinished() == 0


@pytest.mark.needs_configuration("main", why="what names no ledger is kept in main")
async def test_a_message_that_is_no_wake_up_is_kept_unchanged(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    event = transfer_event()
    bodies = {
        b"",
        b"\xffno json",
        b"{}",
        b'{"endpoints": ["7"]}',
        b'{"ledger": "main", "endpoints": []}',
        b'{"ledger": true, "endpoints": []}',
        orjson.dumps({"endpoints": [webhook, 3]}),
    }
    async with scene.working() as worker:
        assert scene.settings is not None
        await until(lambda: not worker.complaints())
        for body in bodies:
            await publish(scene.settings, topology_of(scene.settings).work_queues[0], body)
        await scene.put(event)
        await scene.has_letters(len(bodies))
        await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    found = await letters(scene.database)
    assert {letter.body for letter in found} == bodies
    assert {(letter.reason, letter.endpoint) for letter in found} == {("undeliverable", None)}
    assert all(letter.detail.startswith("not an event: ") for letter in found)
    assert receiver.event_ids() == [event["id"]]


async def test_a_result_that_cannot_be_written_does_not_delay_the_others(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    events = [transfer_event() for _ in range(5)]
    bad = events[2]
    await scene.database.fetch(
        "ALTER TABLE ledger_00.deliveries"
        f" ADD CHECK (NOT (event_id = '{bad['id']}' AND status = 3))"
    )
    async with scene.working(
        replace(QUICK, delivery_sweep_interval_s=0.05), notify_retry_delays_s="0.05"
    ):
        await scene.put(*events)
        await scene.has_letters(4)
        await until(lambda: any(isinstance(fact, NotifierFailed) for fact in scene.facts))
        last = transfer_event()
        receiver.answer = None
        await scene.put(last)
        await scene.ends(webhook, last, DeliveryStatus.DELIVERED)
    kept = {letter.event for letter in await letters(scene.database)}
    assert kept == {event["id"] for event in events if event is not bad}
    # The event is not sent any further.
    assert receiver.event_ids().count(bad["id"]) == 2


# Disabled and deleted endpoints


async def test_an_endpoint_that_answers_410_is_disabled(
    scene: Scene, store: LedgerDatabase
) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(410)
    event = transfer_event()
    await scene.start()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    [letter] = await letters(scene.database)
    assert (letter.reason, letter.detail) == ("endpoint gone", "answered 410")
    assert (letter.endpoint, letter.attempts) == (webhook, 1)
    found = await read_webhook(store, webhook)
    assert found is not None
    assert found.status is WebhookStatus.DISABLED
    assert found.disabled_reason == "it answered 410 Gone"
    # The endpoint gets nothing more.
    later = transfer_event()
    await scene.put(later)
    await scene.ends(webhook, later, DeliveryStatus.SKIPPED)
    assert len(receiver.received) == 1
    assert len(await letters(scene.database)) == 1


async def test_a_retry_for_a_disabled_webhook_becomes_a_dead_letter_that_can_be_redriven(
    scene: Scene, store: LedgerDatabase
) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.3")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.RETRYING)
    await update_webhook(scene.database, webhook, status=WebhookStatus.DISABLED, reason="asked to")
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    [letter] = await letters(scene.database)
    assert (letter.reason, letter.detail) == ("endpoint gone", "the endpoint is disabled")
    assert len(receiver.received) == 1

    receiver.answer = None
    await update_webhook(scene.database, webhook, status=WebhookStatus.ACTIVE)
    assert (await redrive(store, Filter(), lambda _, __: None)).sent == 1
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]] * 2
    assert await letters(scene.database) == []


async def test_a_retry_for_a_deleted_webhook_is_dropped(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    other, _ = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    # The webhook is deleted before this delay is over, on a busy machine too.
    async with scene.working(notify_retry_delays_s="2"):
        await scene.put(event)
        await scene.ends(webhook, event, DeliveryStatus.RETRYING)
        await delete_webhook(scene.database, webhook)

        async def it_is_gone() -> bool:
            return await scene.waiting(2) == 0

        await until(it_is_gone)
        # A later event has arrived, so the notifier has handled the retry.
        await scene.put(transfer_event())
        await until(has_received(other, 2))
    assert len(receiver.received) == 1
    assert await letters(scene.database) == []
    assert await deliveries(scene.database, webhook) == {}
    assert await scene.unfinished() == 0


# Repetitions


async def test_an_event_that_is_published_three_times_is_delivered_once(
    scene: Scene,
) -> None:
    receiver, webhook = await scene.receiver("transfer.posted")
    marker, _ = await scene.receiver("wallet.frozen")
    released = asyncio.Event()
    receiver.answer = after(released)
    event = transfer_event()
    async with scene.working():
        await scene.put(event, event)
        await scene.put(event)
        await until(has_received(receiver, 1))
        # This event comes after all of them, so the notifier has handled them.
        await scene.put(wallet_event())
        await until(has_received(marker, 1))
        assert len(receiver.received) == 1
        released.set()
        await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]]
    assert scene.results(webhook) == {"delivered": 1}
    assert await scene.unfinished() == 0


# The log sink


async def test_the_log_sink_is_an_endpoint(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    log = "00000000-0000-0000-0000-000000000000"
    event = transfer_event()
    await scene.start(notify_log=True)
    await scene.put(event)
    await scene.ends(log, event, DeliveryStatus.DELIVERED)
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]]
    found = (await deliveries(scene.database, log))[event["id"]]
    assert (found.event, found.response_status, found.attempts) == (None, None, 1)


async def test_a_backlog_does_not_hold_up_a_retry_whose_time_has_come(
    scene: Scene, store: LedgerDatabase
) -> None:
    _, webhook = await scene.receiver()
    events = [transfer_event() for _ in range(3)]
    async with store.transaction() as transaction:
        await insert_deliveries(
            transaction,
            [
                EventText(e["id"], e["type"], cloud_event(e, scene.database.ledger.name).decode())
                for e in events
            ],
            [NewDelivery(n, webhook, DeliveryStatus.PENDING) for n in range(1, 4)],
        )
    await scene.database.fetch(
        "UPDATE ledger_00.deliveries SET status = 2, next_attempt_at = now() WHERE event_id = $1",
        events[2]["id"],
    )
    found, _ = await read_waiting(store, {webhook: 2}, [])
    assert [each.event_id for each in found] == [events[2]["id"], events[0]["id"]]


# Metrics


async def test_a_long_backlog_is_counted_up_to_a_limit(
    scene: Scene, shared: Store, store: LedgerDatabase
) -> None:
    _, webhook = await scene.receiver()
    events = [transfer_event() for _ in range(5)]
    async with store.transaction() as transaction:
        await insert_deliveries(
            transaction,
            [
                EventText(e["id"], e["type"], cloud_event(e, scene.database.ledger.name).decode())
                for e in events
            ],
            [NewDelivery(n, webhook, DeliveryStatus.PENDING) for n in range(1, 6)],
        )
    for counted_max, expected in ((3, 3), (10, 5)):
        _, found = await backlog_of(shared, Limits(deliveries_counted_max=counted_max))
        assert found.waiting == expected
        assert found.oldest_s > 0
