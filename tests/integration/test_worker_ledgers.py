"""One worker serves many ledgers: nothing crosses, and no ledger delays another one."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from tests.conftest import Database
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import deliveries, letters, new_webhook, status_of
from tests.support.notifying import QUICK, Scene, backlog_of, has_received
from tests.support.outbox import left, put, transfer_event
from tests.support.pressure import held
from tests.support.queues import bound_queue, message_count, publish, take, topology_of
from tests.support.receivers import after, status
from tests.support.truth import row_count
from tests.support.waiting import until
from transferd.cli import main
from transferd.config import Limits
from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.migrate import create_ledger
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.outbox import HAS_ROWS
from transferd.ledger.watch import LedgerList, LedgerWatch
from transferd.observability.facts import (
    Fact,
    Facts,
    LedgerNotOpened,
    NotificationFinished,
    NotifierFailed,
    OutboxRelayed,
)

DELIVERED = DeliveryStatus.DELIVERED


@pytest.fixture
async def shop(database: Database) -> Ledger:
    """A second ledger, whose wake-ups are in another queue than those of main."""
    return await create_ledger(database.settings(), Limits(), "shop", 3)


@pytest.fixture
async def small(database: Database) -> Ledger:
    """A ledger whose wake-ups are in the queue of main."""
    return await create_ledger(database.settings(), Limits(), "small", 8)


async def command(database: Database, *arguments: str) -> Result:
    """`transferd dead-letters` with these arguments."""
    environment = database.variables(COLUMNS="80")
    words = ["dead-letters", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, main, words, env=environment)


# Nothing crosses


async def test_an_event_reaches_the_webhooks_of_its_ledger_only(
    scene: Scene, shop: Ledger, small: Ledger
) -> None:
    wallet = transfer_event()["data"]["source_wallet_id"]
    ledgers = (MAIN, shop, small)
    receivers = {each: await scene.receiver(ledger=each, wallet=wallet) for each in ledgers}
    # The same wallet and the same id in each ledger.
    event = transfer_event(wallet)
    settings = scene.settings_with()
    async with (
        bound_queue(settings) as everything,
        bound_queue(settings, "shop.#") as of_shop,
        bound_queue(settings, "*.transfer.*") as transfers,
    ):
        await scene.start()
        for ledger in ledgers:
            await scene.put(event, ledger=ledger)
            _, webhook = receivers[ledger]
            await scene.ends(webhook, event, DELIVERED, ledger)
        for queue, names in (
            (everything, ["main", "shop", "small"]),
            (of_shop, ["shop"]),
            (transfers, ["main", "shop", "small"]),
        ):
            messages = await take(settings, queue, len(names))
            assert [orjson.loads(message.body)["ledger"] for message in messages] == names
            assert [message.routing_key for message in messages] == [
                f"{name}.transfer.posted" for name in names
            ]
            assert await message_count(settings, queue) == 0
    for ledger, (receiver, webhook) in receivers.items():
        [request] = receiver.received
        assert request.json["ledger"] == ledger.name
        assert list(await deliveries(scene.database, webhook, ledger)) == [event["id"]]
        assert await row_count(scene.database, f"{ledger.schema}.deliveries") == 1


async def test_retries_and_dead_letters_stay_in_their_ledger(scene: Scene, shop: Ledger) -> None:
    receiver, webhook = await scene.receiver(ledger=shop)
    good, good_webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.05,0.1")
    await scene.put(event, ledger=shop)
    await scene.put(event)
    await scene.has_letters(1, shop)
    assert len(receiver.received) == 3
    [letter] = await letters(scene.database, shop)
    assert (letter.endpoint, letter.event, letter.attempts) == (webhook, event["id"], 3)
    await scene.ends(good_webhook, event, DELIVERED)
    assert await letters(scene.database) == []
    assert good.event_ids() == [event["id"]]

    # The commands see the letters of the ledger that they name, and main without a name.
    for arguments, count in (([], 0), (["--ledger", "main"], 0), (["--ledger", "shop"], 1)):
        shown = (await command(scene.database, "list", "--json", *arguments)).stdout
        assert [json.loads(line)["id"] for line in shown.splitlines()] == [letter.id] * count
    assert (await command(scene.database, "show", letter.id)).exit_code == 1
    shown = (await command(scene.database, "show", letter.id, "--ledger", "shop")).stdout
    assert json.loads(shown)["message"]["ledger"] == "shop"
    for name in ("redrive", "purge"):
        yes = ["--yes"] if name == "purge" else []
        result = await command(scene.database, name, letter.id, *yes)
        assert result.stdout.startswith("0 "), result.output
    receiver.answer = None
    result = await command(scene.database, "redrive", "--all", "--ledger", "shop")
    assert result.stdout == "1 redriven\n"
    await scene.ends(webhook, event, DELIVERED, shop)
    assert await letters(scene.database, shop) == []


async def test_an_unknown_ledger_is_an_error_of_one_line(database: Database) -> None:
    for arguments in (
        ["list"],
        ["show", "019a0000-0000-7000-8000-00000000000a"],
        ["redrive", "--all"],
        ["purge", "--yes", "--all"],
    ):
        result = await command(database, *arguments, "--ledger", "nowhere")
        assert result.exit_code == 1
        error = (
            "Error: there is no ledger nowhere: make it with `transferd ledgers create nowhere`\n"
        )
        assert result.output.endswith(error), result.output


async def test_an_event_of_another_ledger_does_not_enter_main(scene: Scene, shop: Ledger) -> None:
    """A message that another program puts into the dead-letter queue."""
    receiver, _ = await scene.receiver()
    worker = await scene.start()
    await until(lambda: worker.complaints() == {})
    assert scene.settings is not None
    event = {
        "specversion": "1.0",
        "id": "e",
        "ledger": shop.name,
        "type": "transfer.posted",
        "time": "2030-01-02T03:04:05Z",
        "data": {"source_wallet_id": "a", "destination_wallet_id": "b"},
    }
    await publish(scene.settings, topology_of(scene.settings).dead, orjson.dumps(event))
    await scene.has_letters(1)
    [letter] = await letters(scene.database)
    assert (letter.reason, letter.detail) == ("undeliverable", "an event of another ledger")
    assert receiver.received == []
    assert await letters(scene.database, shop) == []


async def test_a_wake_up_of_the_version_before_is_about_main(scene: Scene, shop: Ledger) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    # The sweep does not run again during the test.
    limits = replace(QUICK, delivery_sweep_interval_s=3600.0)
    await scene.start(limits, notify_retry_delays_s="600")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.RETRYING)
    assert scene.settings is not None
    topology = topology_of(scene.settings)
    receiver.answer = None
    await scene.database.fetch("UPDATE ledger_00.deliveries SET next_attempt_at = now()")
    body = orjson.dumps({"endpoints": [webhook]})
    await publish(scene.settings, topology.work_queues[0], body)
    await scene.ends(webhook, event, DELIVERED)


async def test_the_gauges_add_up_all_ledgers(
    database: Database, shared: Store, shop: Ledger
) -> None:
    await put(database, [transfer_event()])
    await put(database, [transfer_event(), transfer_event()], ledger=shop)
    await logged_delivery(database, await new_webhook(database, "https://a.example/"))
    await database.fetch(f"INSERT INTO {shop.schema}.deliveries SELECT * FROM ledger_00.deliveries")
    for limits in (Limits(), Limits(ledgers_asked_max=1)):
        events, waiting = await backlog_of(shared, limits)
        assert events.waiting == 3
        assert events.oldest_s > 0
        assert waiting.waiting == 2


async def test_old_deliveries_are_removed_in_all_ledgers(scene: Scene, shop: Ledger) -> None:
    database = scene.database
    await logged_delivery(database, transfer_event()["id"], status="delivered", days=8)
    await database.fetch(f"INSERT INTO {shop.schema}.deliveries SELECT * FROM ledger_00.deliveries")
    # A ledger that cannot be asked stops no other.
    broken = await create_ledger(database.settings(), Limits(), "broken", 1)
    await database.fetch(f"DROP TABLE {broken.schema}.deliveries")
    await scene.start()

    async def are_removed() -> bool:
        counts = [await row_count(database, f"{each.schema}.deliveries") for each in (MAIN, shop)]
        return counts == [0, 0]

    await until(are_removed)


# No ledger delays another one


async def test_a_backlog_of_one_ledger_delays_no_other(scene: Scene, shop: Ledger) -> None:
    count, row = 50_000, 250
    events = [transfer_event() for _ in range(row)]
    body = orjson.dumps(events).decode()
    await scene.database.fetch(
        f"INSERT INTO {shop.schema}.outbox (created_at, event_count, events)"
        " SELECT clock_timestamp(), $1, $2::json FROM generate_series(1, $3)",
        row,
        body,
        count // row,
    )
    await scene.start()

    def batches() -> list[int]:
        return [fact.events for fact in scene.facts if isinstance(fact, OutboxRelayed)]

    await until(lambda: len(batches()) > 2)
    first = transfer_event()
    before = len(batches())
    await scene.put(first)
    await until(lambda: 1 in batches())
    # The batch of shop that runs at the time, and those of one poll.
    assert batches().index(1) - before <= 1 + QUICK.relay_poll_s / 0.01
    assert len(await left(scene.database, shop)) > count // row // 2


async def test_receivers_that_hang_delay_no_other_ledger(scene: Scene, shop: Ledger) -> None:
    slow, _ = await scene.receiver(ledger=shop)
    for _ in range(29):
        await new_webhook(scene.database, slow.url, ledger=shop)
    released = asyncio.Event()
    slow.answer = after(released)
    quick, webhook = await scene.receiver()
    # The endpoints of shop could hold 60 deliveries, three times as many as the notifier may.
    limits = replace(QUICK, notify_held_max=20, endpoint_in_flight_max=2, endpoint_held_max=2)
    await scene.start(limits)
    await scene.put(*(transfer_event() for _ in range(5)), ledger=shop)
    await until(lambda: slow.in_progress == limits.notify_held_max // 2)
    events = [transfer_event() for _ in range(40)]
    await scene.put(*events)
    await until(has_received(quick, len(events)))
    for event in events:
        await scene.ends(webhook, event, DELIVERED)
    assert slow.in_progress == slow.most_in_progress == limits.notify_held_max // 2
    released.set()
    await until(has_received(slow, 5 * 30))

    async def all_are_delivered() -> bool:
        rows = await scene.database.fetch(f"SELECT status FROM {shop.schema}.deliveries")
        return Counter(row[0] for row in rows) == {1: 150}

    await until(all_are_delivered)
    assert len(slow.received) == 150


async def test_a_ledger_whose_tables_are_locked_delays_no_other(
    scene: Scene, shop: Ledger, small: Ledger
) -> None:
    slow, slow_webhook = await scene.receiver(ledger=shop)
    receiver, webhook = await scene.receiver()
    other, other_webhook = await scene.receiver(ledger=small)
    released = asyncio.Event()
    slow.answer = after(released)
    first, second, third = (transfer_event() for _ in range(3))
    await scene.start(replace(QUICK, relay_wait_max_s=0.5))
    await scene.put(first, ledger=shop)
    await until(has_received(slow, 1))
    async with held(scene.database, f"LOCK TABLE {shop.schema}.deliveries"):
        # Its result cannot be written, and the next event has no rows.
        released.set()
        await scene.put(second, ledger=shop)
        for _ in range(3):
            event = transfer_event()
            await scene.put(event)
            await scene.put(event, ledger=small)
            await scene.ends(webhook, event, DELIVERED)
            await scene.ends(other_webhook, event, DELIVERED, small)
    await scene.put(third, ledger=shop)
    for event in (first, second, third):
        await scene.ends(slow_webhook, event, DELIVERED, shop)
    assert slow.event_ids() == [first["id"], second["id"], third["id"]]
    assert len(receiver.received) == len(other.received) == 3


async def test_a_ledger_without_tables_is_reported_and_left_out(scene: Scene, shop: Ledger) -> None:
    receiver, webhook = await scene.receiver()
    of_shop, shop_webhook = await scene.receiver(ledger=shop)
    await scene.database.fetch(f"ALTER TABLE {shop.schema}.outbox RENAME TO away")
    worker = await scene.start(replace(QUICK, ledgers_read_s=0.2))
    event = transfer_event()
    await scene.put(event)
    await scene.ends(webhook, event, DELIVERED)
    await until(lambda: worker.complaints() == {})

    def reported() -> set[str]:
        return {fact.ledger for fact in scene.facts if isinstance(fact, LedgerNotOpened)}

    await until(lambda: reported() == {"shop"})
    await scene.database.fetch(f"ALTER TABLE {shop.schema}.away RENAME TO outbox")
    await scene.put(event, ledger=shop)
    await scene.ends(shop_webhook, event, DELIVERED, shop)
    assert receiver.event_ids() == of_shop.event_ids() == [event["id"]]


async def test_a_new_ledger_is_served_without_a_restart(scene: Scene) -> None:
    await scene.start(replace(QUICK, ledgers_read_s=0.2))
    new = await create_ledger(scene.database.settings(), Limits(), "new")
    receiver, webhook = await scene.receiver(ledger=new)
    event = transfer_event()
    await scene.put(event, ledger=new)
    await scene.ends(webhook, event, DELIVERED, new)
    assert receiver.event_ids() == [event["id"]]


async def test_a_refused_event_of_one_ledger_stops_no_other(scene: Scene, shop: Ledger) -> None:
    _, webhook = await scene.receiver()
    _, shop_webhook = await scene.receiver(ledger=shop)
    refusing: dict[str, Any] = {"x-max-length": 0, "x-overflow": "reject-publish"}
    settings = scene.settings_with()
    event, last = transfer_event(), transfer_event()
    worker = await scene.start()
    async with bound_queue(settings, "shop.#", **refusing):
        await scene.put(event, ledger=shop)
        await until(lambda: "a queue is full" in worker.complaints().get("relay", ""))
        await scene.put(event)
        await scene.ends(webhook, event, DELIVERED)
        # Another ledger makes progress: the worker is ready.
        await until(lambda: worker.complaints() == {})
        assert await status_of(scene.database, shop_webhook, event["id"], shop) is None
    await scene.put(last, ledger=shop)
    for each in (event, last):
        await scene.ends(shop_webhook, each, DELIVERED, shop)


# Several workers


async def test_workers_share_the_ledgers_and_deliver_each_event_once(scene: Scene) -> None:
    settings = scene.database.settings()
    made = [await create_ledger(settings, Limits(), f"number-{n}", n) for n in range(1, 8)]
    ledgers = [MAIN, *made]
    receivers = [await scene.receiver(ledger=each) for each in ledgers]
    other = Scene(scene.database, scene.settings_with, scene.exits)
    limits = replace(QUICK, consumer_check_s=0.1)
    sent: list[dict[Ledger, str]] = []

    async def send() -> None:
        """An event in each ledger, which are delivered."""
        events = {ledger: transfer_event() for ledger in ledgers}
        for ledger, event in events.items():
            await scene.put(event, ledger=ledger)
        for (ledger, event), (_, webhook) in zip(events.items(), receivers, strict=True):
            await scene.ends(webhook, event, DELIVERED, ledger)
        sent.append({ledger: event["id"] for ledger, event in events.items()})

    def delivered(by: Scene) -> set[Ledger]:
        """The ledgers of the last events that this worker has delivered."""
        ids = {fact.event_id for fact in by.facts if isinstance(fact, NotificationFinished)}
        return {ledger for ledger, id in sent[-1].items() if id in ids}

    await scene.start(limits)
    await send()
    await until(lambda: delivered(scene) == set(ledgers))
    async with other.working(limits):

        async def is_fair() -> bool:
            await send()
            await until(lambda: len(delivered(scene)) + len(delivered(other)) == len(ledgers))
            return len(delivered(scene)) == len(delivered(other)) == 4

        await until(is_fair, within_s=30)
        failures = [f for f in scene.facts + other.facts if isinstance(f, NotifierFailed)]
        assert failures == []
        assert MAIN in delivered(scene)
        assert not delivered(scene) & delivered(other)
    # The first one takes the ledgers of the other one over.
    await send()
    await until(lambda: delivered(scene) == set(ledgers))
    for ledger, (receiver, _) in zip(ledgers, receivers, strict=True):
        assert receiver.event_ids() == [each[ledger] for each in sent]


async def test_a_queue_is_left_after_the_deliveries_of_its_ledgers(
    scene: Scene, shop: Ledger
) -> None:
    """Another worker would make a delivery that is in flight a second time."""
    _, main_webhook = await scene.receiver()
    receiver, webhook = await scene.receiver(ledger=shop)
    released = asyncio.Event()
    receiver.answer = after(released)
    first, second = transfer_event(), transfer_event()
    limits = replace(QUICK, consumer_check_s=0.1, webhook_timeout_s=60.0)
    worker = await scene.start(limits)
    await until(lambda: worker.complaints() == {})
    await scene.put(first, second, ledger=shop)
    await until(has_received(receiver, 2))
    others = [Scene(scene.database, scene.settings_with, scene.exits) for _ in range(3)]
    for other in others:
        await other.start(limits)
    # Two queues for each of four workers: shop's has to be left, with deliveries in flight.
    event = transfer_event()
    await scene.put(event)
    await scene.ends(main_webhook, event, DELIVERED)
    released.set()
    for each in (first, second):
        await scene.ends(webhook, each, DELIVERED, shop)

    async def another_delivers() -> bool:
        later = transfer_event()
        await scene.put(later, ledger=shop)
        await scene.ends(webhook, later, DELIVERED, shop)
        facts = [fact for other in others for fact in other.facts]
        return any(
            isinstance(fact, NotificationFinished) and fact.event_id == later["id"]
            for fact in facts
        )

    await until(another_delivers, within_s=30)
    assert Counter(receiver.event_ids()).most_common(1)[0][1] == 1


# The watch


async def test_busy_ledgers_are_asked_each_time_and_idle_ones_in_turn(
    database: Database, shared: Store
) -> None:
    settings = database.settings()
    made = [await create_ledger(settings, Limits(), f"number-{n}", n) for n in range(1, 5)]
    ledgers = [MAIN, *made]
    now = [1000.0]
    limits = Limits(ledgers_asked_max=2, idle_groups_asked_max=1, ledgers_read_s=3600.0)
    watch = LedgerWatch(
        shared,
        LedgerList(shared, limits, lambda: now[0]),
        HAS_ROWS,
        limits=limits,
        facts=Facts(),
        clock=lambda: now[0],
    )
    for _ in range(3):
        assert await watch.ledgers() == []
    await put(database, [transfer_event()], ledger=ledgers[4])
    # Each group of idle ledgers was asked just now.
    assert await watch.ledgers() == []
    now[0] += limits.ledger_idle_s
    # A group at each call: 0 and 1, then 2 and 3, then 4.
    assert [await watch.ledgers() for _ in range(3)] == [[], [], [ledgers[4]]]
    await put(database, [transfer_event()], ledger=ledgers[1])
    # The busy one is asked each time.
    for _ in range(2):
        assert await watch.ledgers() == [ledgers[4]]
    now[0] += limits.ledger_idle_s
    assert set(await watch.ledgers()) == {ledgers[1], ledgers[4]}
    await database.fetch(f"DELETE FROM {ledgers[1].schema}.outbox")
    assert await watch.ledgers() == [ledgers[4]]
    assert watch.busy == [ledgers[4], ledgers[1]]
    now[0] += limits.ledger_busy_s
    await watch.ledgers()
    assert ledgers[1] not in watch.busy


async def test_the_first_poll_of_a_few_ledgers_asks_all(
    database: Database, shared: Store, shop: Ledger
) -> None:
    facts: list[Fact] = []
    watch = LedgerWatch(
        shared,
        LedgerList(shared, Limits(), time.monotonic),
        HAS_ROWS,
        limits=Limits(),
        facts=Facts(facts.append),
        clock=time.monotonic,
    )
    assert await watch.ledgers() == []
    for ledger in (MAIN, shop):
        await put(database, [transfer_event()], ledger=ledger)
    assert await watch.ledgers() == [MAIN, shop]
    await database.fetch(f"DROP TABLE {shop.schema}.outbox")
    for _ in range(2):
        assert await watch.ledgers() == [MAIN]
    [fact] = facts
    assert isinstance(fact, LedgerNotOpened)
    assert fact.ledger == "shop"


async def test_a_wake_up_for_an_unknown_ledger_does_nothing(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    worker = await scene.start()
    await until(lambda: worker.complaints() == {})
    assert scene.settings is not None
    event = transfer_event()
    body = orjson.dumps({"ledger": 4095, "endpoints": [webhook]})
    await publish(scene.settings, topology_of(scene.settings).work_queue(4095), body)
    await scene.put(event)
    await scene.ends(webhook, event, DELIVERED)
    assert worker.complaints() == {}
    assert len(receiver.received) == 1


async def test_a_question_that_hangs_does_not_hide_the_other_answers(
    database: Database, shared: Store, shop: Ledger
) -> None:
    limits = Limits(ledgers_asked_max=1, watch_wait_s=0.05, ledger_idle_s=0.01)
    watch = LedgerWatch(
        shared,
        LedgerList(shared, limits, time.monotonic),
        HAS_ROWS,
        limits=limits,
        facts=Facts(),
        clock=time.monotonic,
    )
    for ledger in (MAIN, shop):
        await put(database, [transfer_event()], ledger=ledger)

    async def finds(*ledgers: Ledger) -> bool:
        return await watch.ledgers() == list(ledgers)

    await until(lambda: finds(MAIN, shop))
    # The question about one ledger waits for a lock, as it would for a server that hangs.
    async with held(database, f"LOCK TABLE {shop.schema}.outbox"):
        await until(lambda: finds(MAIN))
    await until(lambda: finds(MAIN, shop))


async def test_results_wait_while_their_ledger_is_restored(scene: Scene, shop: Ledger) -> None:
    receiver, webhook = await scene.receiver(ledger=shop)
    released = asyncio.Event()
    receiver.answer = after(released, status(200))
    event = transfer_event()
    worker = await scene.start()
    await scene.put(event, ledger=shop)
    await until(has_received(receiver, 1))
    await scene.database.fetch(f"ALTER SCHEMA {shop.schema} RENAME TO away")
    released.set()
    # The result could not be written.
    await until(lambda: "writing" in worker.complaints())
    await scene.database.fetch(f"ALTER SCHEMA away RENAME TO {shop.schema}")
    await scene.ends(webhook, event, DELIVERED, shop)
    last = transfer_event()
    await scene.put(last, ledger=shop)
    await scene.ends(webhook, last, DELIVERED, shop)
