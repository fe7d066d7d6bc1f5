"""`python -m loadtest.bench.notifications`: what leaves, measured on private servers.

- The relay beside a bare aio-pika loop with 200 confirmed publishes in flight, interleaved.
- A backlog of events: how fast it is drained, and the memory of the worker while it is.
- The lag from commit to sink at a steady rate of transfers.
"""

import asyncio
import os
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import aio_pika
import aiohttp
import asyncpg
import click
import orjson
import uvloop
from aio_pika.abc import AbstractQueue

from loadtest.bench.load import at_rate
from loadtest.bench.measures import WALLETS, uniform_pairs
from loadtest.bench.scene import SERVICE, Scene, Side, scene
from transferd.config import Limits, Settings, load_settings
from transferd.devstack import RabbitServer
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database
from transferd.notifications.directory import Directory
from transferd.notifications.rabbit import RabbitBroker
from transferd.notifications.relay import Relay
from transferd.notifications.topology import Topology
from transferd.observability.facts import Facts

_IN_FLIGHT = 200
_GROUP_EVENTS = 50


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--events", default=10_000, show_default=True, help="Events per round of the relay.")
@click.option("--backlog", default=100_000, show_default=True)
@click.option("--rate", default=2_000, show_default=True, help="Transfers per second.")
@click.option("--seconds", default=15, show_default=True)
def main(rounds: int, events: int, backlog: int, rate: int, seconds: int) -> None:
    """Measure the relay, a backlog and the lag."""
    uvloop.run(_measure(rounds, events, backlog, rate, seconds))


async def _measure(rounds: int, events: int, backlog: int, rate: int, seconds: int) -> None:
    async with scene() as place:
        rabbitmq = RabbitServer(place.directory / "rabbitmq")
        place.exits.push_async_callback(rabbitmq.stop)
        await rabbitmq.start()
        side = await place.add(Side("transferd", SERVICE), wallets=WALLETS)
        settings = load_settings(
            database_url=side.database_url,
            redis_url=side.redis_url,
            amqp_url=rabbitmq.url,
            worker_port=0,
        )
        await _compare_relay(settings, rounds, events)
        await _drain_backlog(settings, backlog)
        await _measure_lag(settings, place, rate, seconds)


def _event(number: int) -> dict[str, object]:
    return {
        "id": new_id(),
        "type": "transfer.posted",
        "time": "2026-01-01T00:00:00.000000Z",
        "traceparent": f"00-{number:032x}-{number:016x}-00",
        "request_id": f"{number:032x}",
        "data": {
            "id": new_id(),
            "kind": "transfer",
            "source_wallet_id": new_id(),
            "destination_wallet_id": new_id(),
            "amount": 1,
            "currency": "USD",
            "reference": None,
            "metadata": {},
            "source_version": number,
            "source_balance_after": 1,
            "destination_version": number,
            "destination_balance_after": 1,
            "reverses_transfer_id": None,
        },
    }


async def _fill_outbox(settings: Settings, count: int) -> None:
    connection = await asyncpg.connect(settings.required("database_url"))
    for first in range(0, count, _GROUP_EVENTS):
        events = [_event(first + number) for number in range(_GROUP_EVENTS)]
        await connection.execute(
            "INSERT INTO ledger_00.outbox (created_at, event_count, events) VALUES (now(), $1, $2)",
            len(events),
            orjson.dumps(events).decode(),
        )
    await connection.close()


async def _delete_deliveries(settings: Settings) -> None:
    """What the relay has written, so that the next measurement begins with none."""
    connection = await asyncpg.connect(settings.required("database_url"))
    await connection.execute("DELETE FROM transferd.deliveries")
    await connection.close()


async def _compare_relay(settings: Settings, rounds: int, events: int) -> None:
    topology = Topology(settings.amqp_prefix, settings.retry_delays_s, Limits())
    relay_rates, bare_rates = [], []
    async with _subscriber(settings, topology) as queue:
        for _ in range(rounds):
            await _fill_outbox(settings, events)
            relay_rates.append(events / await _relay_all(settings, topology))
            await queue.purge()
            bare_rates.append(events / await _publish_bare(settings, topology, events))
            await queue.purge()
    await _delete_deliveries(settings)
    relay, bare = statistics.median(relay_rates), statistics.median(bare_rates)
    click.echo(
        f"relay {relay:.0f}/s, bare aio-pika loop {bare:.0f}/s, ratio {relay / bare:.2f}"
        f" (rounds: {_rounded(relay_rates)} against {_rounded(bare_rates)})"
    )


async def _relay_all(settings: Settings, topology: Topology) -> float:
    """Seconds to publish the whole outbox."""
    limits = Limits()
    async with Database(settings, limits, connections=1) as database:
        relay = Relay(
            database=database,
            connect=partial(RabbitBroker, settings.required("amqp_url"), topology, limits, "bench"),
            directory=Directory(with_log=True),
            limits=limits,
            facts=Facts(),
            clock=time.monotonic,
            wakeup=asyncio.Event(),
        )
        started = time.monotonic()
        while await relay.relay_once():
            pass
        elapsed_s = time.monotonic() - started
        await relay.close()
    return elapsed_s


async def _publish_bare(settings: Settings, topology: Topology, count: int) -> float:
    """Seconds for as many messages of the same size, as fast as aio-pika goes."""
    connection = await aio_pika.connect(settings.required("amqp_url"))
    async with connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(topology.exchange)
        bodies = iter([orjson.dumps(_event(number)) for number in range(count)])

        async def publish() -> None:
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, "transfer.posted")

        started = time.monotonic()
        await asyncio.gather(*(publish() for _ in range(_IN_FLIGHT)))
        return time.monotonic() - started


@asynccontextmanager
async def _subscriber(settings: Settings, topology: Topology) -> AsyncIterator[AbstractQueue]:
    """A quorum queue of another program, which gets every event."""
    async with await aio_pika.connect(settings.required("amqp_url")) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            topology.exchange, aio_pika.ExchangeType.TOPIC, durable=True
        )
        queue = await channel.declare_queue(
            "bench.subscriber", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await queue.bind(exchange, "#")
        yield queue
        await queue.delete(if_unused=False, if_empty=False)


async def _drain_backlog(settings: Settings, count: int) -> None:
    await _fill_outbox(settings, count)
    async with AsyncExitStack() as exits:
        process, url = await _start_worker(settings, exits)
        started = time.monotonic()
        memory: list[float] = []
        done = 0.0
        while done < count:
            await asyncio.sleep(1.0)
            memory.append(_resident_mib(process.pid))
            done = _sum_of(await _metrics(url), "transferd_notifications_total")
        elapsed_s = time.monotonic() - started
    quarter = max(1, len(memory) // 4)
    click.echo(
        f"backlog of {count} events delivered in {elapsed_s:.0f} s ({count / elapsed_s:.0f}/s);"
        f" worker {max(memory[:quarter]):.0f} MiB in the first quarter,"
        f" {max(memory[-quarter:]):.0f} MiB in the last"
    )


async def _measure_lag(settings: Settings, place: Scene, rate: int, seconds: int) -> None:
    async with AsyncExitStack() as exits:
        _, url = await _start_worker(settings, exits)
        before = await _settled(url)
        found = await at_rate(place["transferd"], uniform_pairs(place), rate, seconds)
        await asyncio.sleep(2.0)
        after = await _metrics(url)
    counts = _buckets(after, before)
    click.echo(
        f"at {rate} transfers/s (p99 {found['p99_ms']:.0f} ms), commit to sink:"
        f" p50 <= {_quantile(counts, 0.5):.3f} s, p99 <= {_quantile(counts, 0.99):.3f} s"
        f" ({counts[-1][1]:.0f} deliveries of {rate * seconds})"
    )


async def _start_worker(
    settings: Settings, exits: AsyncExitStack
) -> tuple[asyncio.subprocess.Process, str]:
    environment = os.environ | {
        "TRANSFERD_DATABASE_URL": settings.required("database_url"),
        "TRANSFERD_AMQP_URL": settings.required("amqp_url"),
        "TRANSFERD_WORKER_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from transferd.cli import main; main(['worker'])"),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )

    async def stop() -> None:
        process.terminate()
        await process.wait()
        reading.cancel()

    exits.push_async_callback(stop)
    assert process.stderr is not None
    url = ""
    while not url:
        line = (await process.stderr.readline()).decode()
        found = re.search(r"http://\S+(?=/readyz)", line)
        url = found.group() if found else ""
    # The log lines of the sink have to go somewhere.
    reading = asyncio.create_task(_discard(process.stderr))
    return process, url


async def _settled(url: str) -> dict[str, float]:
    """The metrics once everything from before, such as the news of new wallets, is delivered."""
    last = -1.0
    while True:
        metrics = await _metrics(url)
        count = _sum_of(metrics, "transferd_notifications_total")
        if count == last:
            return metrics
        last = count
        await asyncio.sleep(1.0)


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


async def _metrics(url: str) -> dict[str, float]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def _sum_of(metrics: dict[str, float], name: str) -> float:
    return sum(value for key, value in metrics.items() if key.partition("{")[0] == name)


def _buckets(after: dict[str, float], before: dict[str, float]) -> list[tuple[float, float]]:
    """Upper bound in seconds -> deliveries up to it, of the log sink, between two readings."""
    pattern = re.compile(r'transferd_notification_lag_seconds_bucket\{le="([^"]+)",sink="log"\}')
    found = []
    for name, value in after.items():
        match = pattern.fullmatch(name)
        if match:
            found.append((float(match.group(1)), value - before.get(name, 0.0)))
    return sorted(found)


def _quantile(buckets: list[tuple[float, float]], share: float) -> float:
    return next(bound for bound, count in buckets if count >= share * buckets[-1][1])


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _rounded(rates: list[float]) -> str:
    return ", ".join(f"{rate:.0f}" for rate in rates)


if __name__ == "__main__":
    main()
