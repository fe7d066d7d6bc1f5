"""`transferd worker` as a process: what it tells of itself, how it stops, why it does not start."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from click.testing import CliRunner

from tests.conftest import Database, Workers
from tests.support.command import WITHIN_S, Command, run, running
from tests.support.endpoints import delivery, new_webhook
from tests.support.outbox import left, put, transfer_event
from tests.support.queues import message_count, topology_of
from tests.support.receivers import Receiver, after, receiving
from tests.support.servers import Servers
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
    """A worker that says that it is ready."""
    async with running("worker", *arguments, settings=settings) as command:
        await command.says("/readyz says so")

        async def it_is() -> bool:
            return (await get(command, "/readyz"))[0] == 200

        await until(it_is, within_s=WITHIN_S)
        yield command


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


# A whole life


async def test_it_delivers_tells_of_itself_and_stops_in_order(
    database: Database, workers: Workers, receiver: Receiver
) -> None:
    webhook = await new_webhook(database, receiver.url)
    first, second = transfer_event(), transfer_event()
    async with working(settings=environment(workers)) as command:
        assert await get(command, "/healthz") == (200, '{"status": "ok"}')
        assert await get(command, "/readyz") == (200, '{"status": "ready"}')
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

        # What is on its way when it is asked to stop comes to its end.
        released = asyncio.Event()
        receiver.answer = after(released)
        await put(database, [second])
        await until(lambda: receiver.in_progress == 1)
        command.send(signal.SIGTERM)
        await command.says("stopping: asked to")
        assert command.is_running
        begun = await delivery(database, webhook, second["id"])
        assert begun is not None
        assert (begun.status, begun.attempts) == (DeliveryStatus.PENDING, 0)
        released.set()
        assert await command.end() == 0, command.output
    found = await delivery(database, webhook, second["id"])
    assert found is not None
    assert (found.status, found.attempts) == (DeliveryStatus.DELIVERED, 1)
    assert "Traceback" not in command.output

    # Each event is a line, which tells nothing of what is in it.
    lines = [json.loads(line) for line in command.lines_with('"event":"event"')]
    assert [(line["id"], line["type"]) for line in lines] == [
        (event["id"], "transfer.posted") for event in (first, second)
    ]
    assert "123456" not in command.output
    for event in (first, second):
        assert event["data"]["source_wallet_id"] not in command.output


async def test_whoever_presses_ctrl_c_again_does_not_wait(
    database: Database, workers: Workers, receiver: Receiver
) -> None:
    receiver.answer = after(asyncio.Event())
    await new_webhook(database, receiver.url)
    settings = environment(workers, TRANSFERD_NOTIFY_LOG="false")
    async with working(settings=settings) as command:
        await put(database, [transfer_event()])
        await until(lambda: receiver.in_progress == 1)
        command.send(signal.SIGINT)
        await command.says("stopping: asked to")
        command.send(signal.SIGINT)
        await until(lambda: not command.is_running, within_s=5.0)
        assert await command.end() == 0, command.output
    # It was not finished, so it comes again.
    given = workers.settings()

    async def it_is_back() -> bool:
        return await message_count(given, topology_of(given).work) == 1

    await until(it_is_back)


async def test_relay_and_notifier_can_be_processes_of_their_own(
    database: Database, workers: Workers, receiver: Receiver
) -> None:
    webhook = await new_webhook(database, receiver.url)
    settings, event = environment(workers), transfer_event()
    async with working("--only", "relay", settings=settings) as relay:
        await put(database, [event])

        async def it_has_left() -> bool:
            return await left(database) == []

        await until(it_has_left)
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
    found = await delivery(database, webhook, event["id"])
    assert found is not None
    assert found.status is DeliveryStatus.DELIVERED


# What is not as it should be


async def test_without_the_broker_it_says_why_and_waits(workers: Workers) -> None:
    settings = environment(workers, TRANSFERD_AMQP_URL=NOTHING_LISTENS)
    async with running("worker", settings=settings) as command:
        await command.says("/readyz says so")

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


async def test_failures_are_simulated_only_aloud(
    database: Database, workers: Workers, receiver: Receiver
) -> None:
    webhook = await new_webhook(database, receiver.url)
    event = transfer_event()
    settings = environment(workers, NOTIFY_FAIL_RATE="1", TRANSFERD_NOTIFY_LOG="false")
    async with working(settings=settings) as command:
        said = "TRANSFERD_NOTIFY_FAIL_RATE=1.0: failures are simulated"
        assert command.lines_with(said) == [said]
        await put(database, [event])

        async def it_failed() -> bool:
            found = await delivery(database, webhook, event["id"])
            return found is not None and found.attempts > 0

        await until(it_failed)
        found = await delivery(database, webhook, event["id"])
        assert found is not None
        assert found.status is DeliveryStatus.RETRYING
        assert found.error == "simulated failure (TRANSFERD_NOTIFY_FAIL_RATE)"
        assert receiver.received == []
        command.send(signal.SIGTERM)
        assert await command.end() == 0


async def test_a_port_in_use_is_one_line_before_any_server_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = {
            "TRANSFERD_WORKER_PORT": port,
            "TRANSFERD_AMQP_URL": NOTHING_LISTENS,
            "TRANSFERD_DATABASE_URL": "postgresql://transferd@127.0.0.1:9/transferd",
        }
        code, output = await run("worker", settings=settings)
    assert code == 1
    assert output.splitlines()[-1] == (
        f"Error: cannot listen on 127.0.0.1:{port} (Address already in use): stop what listens"
        " there, or set TRANSFERD_WORKER_PORT"
    )
    assert "Traceback" not in output


@pytest.fixture
def empty_database(servers: Servers) -> Iterator[str]:
    """The address of a database that nobody has migrated."""
    name, number = asyncio.run(servers.new_database(template="template1"))
    yield servers.settings(name, number).required("database_url")
    asyncio.run(servers.drop_database(name))


@pytest.mark.parametrize("only", [[], ["--only", "relay"], ["--only", "notifier"]])
def test_what_is_missing_is_one_line(empty_database: str, only: list[str]) -> None:
    nobody = "postgresql://transferd@127.0.0.1:9/transferd"
    for database_url, amqp_url, line in (
        (empty_database, None, "TRANSFERD_AMQP_URL is not set: set it, or use `transferd dev`"),
        (None, NOTHING_LISTENS, "TRANSFERD_DATABASE_URL is not set"),
        (nobody, NOTHING_LISTENS, "PostgreSQL: "),
        (empty_database, NOTHING_LISTENS, "the database has no ledger yet ("),
    ):
        variables = {
            "TRANSFERD_DATABASE_URL": database_url,
            "TRANSFERD_AMQP_URL": amqp_url,
            "TRANSFERD_WORKER_PORT": "0",
        }
        result = CliRunner().invoke(main, ["worker", *only], env=variables)
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: {line}"), result.output
        assert result.output.count("\n") == 1
        if "no ledger yet" in line:
            assert result.output.endswith("): run `transferd migrate`\n")


def test_only_one_of_its_parts_can_be_named() -> None:
    result = CliRunner().invoke(main, ["worker", "--only", "sink"])
    assert result.exit_code == 2
    assert "'relay', 'notifier'" in result.output
