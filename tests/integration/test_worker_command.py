"""`transferd worker` as a process: its endpoints, its metrics, and how it stops."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from click.testing import CliRunner

from tests.conftest import Database, Workers
from tests.support.command import WITHIN_S, Command, running
from tests.support.endpoints import deliveries, new_webhook
from tests.support.outbox import left, put, transfer_event
from tests.support.queues import message_count, topology_of
from tests.support.receivers import Receiver, after, receiving
from tests.support.waiting import until
from transferd.cli import main
from transferd.domain.webhook import DeliveryStatus

NOTHING_LISTENS = "amqp://127.0.0.1:9/"
METRICS = {
    "transferd_outbox_events_total",
    "transferd_outbox_publish_seconds_count",
    "transferd_outbox_waiting_events",
    "transferd_outbox_oldest_seconds",
    "transferd_notifications_total",
    "transferd_notification_lag_seconds_count",
    "transferd_notifications_in_flight",
}


def environment(workers: Workers, **changes: str) -> dict[str, str]:
    """A worker's settings as variables, with any free port."""
    given = workers.settings()
    return (
        workers.database.variables()
        | {
            "TRANSFERD_AMQP_URL": given.required("amqp_url"),
            "TRANSFERD_AMQP_PREFIX": given.amqp_prefix,
            "TRANSFERD_WORKER_PORT": "0",
            "TRANSFERD_WEBHOOK_ALLOW_HTTP": "true",
            "TRANSFERD_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        | changes
    )


async def get(command: Command, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(command.url + path) as response:
        return response.status, await response.text()


async def samples(command: Command) -> dict[str, float]:
    """The metrics by name; those with labels are added up."""
    _, text = await get(command, "/metrics")
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


@asynccontextmanager
async def working(*arguments: str, settings: dict[str, str]) -> AsyncIterator[Command]:
    """A worker that is ready."""
    async with running("worker", *arguments, settings=settings) as command:
        await command.says("/readyz answers 200")

        async def it_is() -> bool:
            return (await get(command, "/readyz"))[0] == 200

        await until(it_is, within_s=WITHIN_S)
        yield command


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


# From the start to the stop


async def test_a_worker_delivers_exports_metrics_and_stops_in_order(
    database: Database, workers: Workers, receiver: Receiver
) -> None:
    webhook = await new_webhook(database, receiver.url)
    first, second = transfer_event(), transfer_event()
    async with working(settings=environment(workers)) as command:
        assert await get(command, "/healthz") == (200, '{"status":"ok"}')
        assert await get(command, "/readyz") == (200, '{"status":"ready"}')
        await put(database, [first])
        await until(lambda: receiver.event_ids() == [first["id"]])

        async def all_is_counted() -> bool:
            counted = await samples(command)
            return counted.get("transferd_notifications_total") == 2.0

        await until(all_is_counted)
        counted = await samples(command)
        assert counted.keys() >= METRICS
        assert counted["transferd_outbox_events_total"] == 1.0
        assert counted["transferd_notifications_in_flight"] == 0.0

        # A delivery that is in flight at the signal is finished.
        released = asyncio.Event()
        receiver.answer = after(released)
        await put(database, [second])
        await until(lambda: receiver.in_progress == 1)
        command.send(signal.SIGTERM)
        await command.says("stopping: signal received")
        assert command.is_running
        begun = (await deliveries(database, webhook))[second["id"]]
        assert (begun.status, begun.attempts) == (DeliveryStatus.PENDING, 0)
        released.set()
        assert await command.end() == 0, command.output
    found = (await deliveries(database, webhook))[second["id"]]
    assert (found.status, found.attempts) == (DeliveryStatus.DELIVERED, 1)
    assert "Traceback" not in command.output

    # Each event is a line without the content of the event.
    lines = [json.loads(line) for line in command.lines_with('"event":"event"')]
    assert [(line["id"], line["type"]) for line in lines] == [
        (event["id"], "transfer.posted") for event in (first, second)
    ]
    assert "123456" not in command.output
    for event in (first, second):
        assert event["data"]["source_wallet_id"] not in command.output


async def test_a_second_ctrl_c_ends_the_worker_at_once(
    database: Database, workers: Workers, receiver: Receiver
) -> None:
    receiver.answer = after(asyncio.Event())
    await new_webhook(database, receiver.url)
    settings = environment(workers, TRANSFERD_NOTIFY_LOG="false")
    async with working(settings=settings) as command:
        await put(database, [transfer_event()])
        await until(lambda: receiver.in_progress == 1)
        command.send(signal.SIGINT)
        await command.says("stopping: signal received")
        command.send(signal.SIGINT)
        await until(lambda: not command.is_running, within_s=5.0)
        assert await command.end() == 0, command.output
    # The delivery was not finished, so its message is in the queue again.
    given = workers.settings()

    async def is_back() -> bool:
        return await message_count(given, topology_of(given).work_queues[0]) == 1

    await until(is_back)


async def test_relay_and_notifier_can_be_processes_of_their_own(
    database: Database, workers: Workers, receiver: Receiver
) -> None:
    webhook = await new_webhook(database, receiver.url)
    settings, event = environment(workers), transfer_event()
    async with working("--only", "relay", settings=settings) as relay:
        await put(database, [event])

        async def outbox_is_empty() -> bool:
            return await left(database) == []

        await until(outbox_is_empty)
        counted = await samples(relay)
        assert counted["transferd_outbox_events_total"] == 1.0
        assert "transferd_notifications_in_flight" not in counted
        assert receiver.received == []

        async with working("--only", "notifier", settings=settings) as notifier:
            await until(lambda: receiver.event_ids() == [event["id"]])
            counted = await samples(notifier)
            assert "transferd_outbox_waiting_events" not in counted
            notifier.send(signal.SIGTERM)
            assert await notifier.end() == 0, notifier.output
        relay.send(signal.SIGTERM)
        assert await relay.end() == 0, relay.output
    found = (await deliveries(database, webhook))[event["id"]]
    assert found.status is DeliveryStatus.DELIVERED


# Problems


async def test_without_the_broker_a_worker_reports_the_reason_and_waits(workers: Workers) -> None:
    settings = environment(workers, TRANSFERD_AMQP_URL=NOTHING_LISTENS, NOTIFY_FAIL_RATE="1")
    async with running("worker", settings=settings) as command:
        await command.says("/readyz answers 200")
        assert command.lines_with("TRANSFERD_NOTIFY_FAIL_RATE=1.0: failures are simulated")

        async def both_complain() -> bool:
            status, text = await get(command, "/readyz")
            assert status == 503
            why = json.loads(text)["why"]
            assert set(why) == {"relay", "consumer"}
            return all("out of reach" in each for each in why.values())

        await until(both_complain)
        assert (await get(command, "/healthz"))[0] == 200
        assert command.is_running
        command.send(signal.SIGTERM)
        assert await command.end() == 0, command.output
    assert command.lines_with("notifications wait")
    assert "Traceback" not in command.output


def test_an_unknown_part_of_the_worker_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["worker", "--only", "sink"])
    assert result.exit_code == 2
    assert "'relay', 'notifier'" in result.output
