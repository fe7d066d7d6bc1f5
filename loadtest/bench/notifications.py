"""`python -m loadtest.bench.notifications`: measure relay and deliveries on private servers.

- The rate of the relay, alternating with a bare aio-pika loop that has 200 confirmed publishes in
  flight.
- The rate at which a backlog of events is delivered, and the memory of the worker meanwhile.
- The lag from commit to sink at a steady rate of transfers.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import aio_pika
import asyncpg
import click
import orjson
import uvloop
from aio_pika.abc import AbstractQueue
from prometheus_client.samples import Sample

from loadtest.bench.load import at_rate
from loadtest.bench.measures import WALLETS, uniform_pairs
from loadtest.bench.setup import SERVICE, WORKER, Setup, Side, bench_setup
from loadtest.dashboards.figures import quantile
from transferd.config import Limits, Settings, load_settings
from transferd.devstack import RabbitServer
from transferd.domain.ledger import MAIN
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database
from transferd.notifications.directory import Directories
from transferd.notifications.rabbit import RabbitBroker
from transferd.notifications.relay import Relay
from transferd.notifications.topology import Topology
from transferd.observability.facts import Facts

_IN_FLIGHT = 200
_GROUP_EVENTS = 50


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--events", default=10_000, show_default=True, help="Events per round of the relay.")
@click.option("--backlog", default=100_000, show_default=True, help="Events in the backlog.")
@click.option("--rate", default=2_000, show_default=True, help="Transfers per second.")
@click.option("--seconds", default=15, show_default=True)
def main(rounds: int, events: int, backlog: int, rate: int, seconds: int) -> None:
    """Measure the relay, a backlog and the lag."""
    uvloop.run(_measure(rounds, events, backlog, rate, seconds))


async def _measure(rounds: int, events: int, backlog: int, rate: int, seconds: int) -> None:
    async with bench_setup() as setup:
        rabbitmq = RabbitServer(setup.directory / "rabbitmq")
        setup.exits.push_async_callback(rabbitmq.stop)
        await rabbitmq.start()
        setup.amqp_url = rabbitmq.url
        side = await setup.add(Side("transferd", SERVICE), wallets=WALLETS)
        settings = load_settings(
            database_url=side.database_url,
            redis_url=side.redis_url,
            amqp_url=rabbitmq.url,
            worker_port=0,
        )
        await _compare_relay(settings, rounds, events)
        worker = replace(side, name="worker", command=WORKER)
        await _fill_outbox(settings, backlog)
        await setup.start(worker)
        await _drain_backlog(worker, backlog)
        await _measure_lag(worker, setup, rate, seconds)


def _event(number: int) -> dict[str, object]:
    return {
        "id": new_id(MAIN),
        "type": "transfer.posted",
        "time": "2026-01-01T00:00:00.000000Z",
        "traceparent": f"00-{number:032x}-{number:016x}-00",
        "request_id": f"{number:032x}",
        "data": {
            "id": new_id(MAIN),
            "kind": "transfer",
            "source_wallet_id": new_id(MAIN),
            "destination_wallet_id": new_id(MAIN),
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
    """Delete the deliveries that the relay has written."""
    connection = await asyncpg.connect(settings.required("database_url"))
    await connection.execute("DELETE FROM ledger_00.deliveries")
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
            directories=Directories(limits, with_log=True),
            limits=limits,
            facts=Facts(),
            clock=time.monotonic,
        )
        url, events_max = settings.required("amqp_url"), limits.relay_batch_events_max
        started = time.monotonic()
        async with RabbitBroker(url, topology, limits, "bench") as broker:
            while await relay.relay_once(broker, MAIN, events_max=events_max):
                pass
    return time.monotonic() - started


async def _publish_bare(settings: Settings, topology: Topology, count: int) -> float:
    """Seconds to publish as many messages of the same size with aio-pika."""
    connection = await aio_pika.connect(settings.required("amqp_url"))
    async with connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(topology.exchange)
        bodies = iter([orjson.dumps(_event(number)) for number in range(count)])

        async def publish() -> None:
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, f"{MAIN.name}.transfer.posted")

        started = time.monotonic()
        await asyncio.gather(*(publish() for _ in range(_IN_FLIGHT)))
        return time.monotonic() - started


@asynccontextmanager
async def _subscriber(settings: Settings, topology: Topology) -> AsyncIterator[AbstractQueue]:
    """A quorum queue that receives all events."""
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


async def _drain_backlog(worker: Side, count: int) -> None:
    started = time.monotonic()
    memory: list[float] = []
    while _delivered(await worker.running.metrics()) < count:
        await asyncio.sleep(1.0)
        memory.append(worker.running.resident_mib)
    elapsed_s = time.monotonic() - started
    quarter = max(1, len(memory) // 4)
    click.echo(
        f"backlog of {count} events delivered in {elapsed_s:.0f} s ({count / elapsed_s:.0f}/s);"
        f" worker {max(memory[:quarter]):.0f} MiB in the first quarter,"
        f" {max(memory[-quarter:]):.0f} MiB in the last"
    )


async def _measure_lag(worker: Side, setup: Setup, rate: int, seconds: int) -> None:
    before = await _settled(worker)
    found = await at_rate(setup["transferd"], uniform_pairs(setup), rate, seconds)
    await asyncio.sleep(2.0)
    lags = {
        bound: count - _lags(before)[bound]
        for bound, count in _lags(await worker.running.metrics()).items()
    }
    p50_s, p99_s = (quantile(share, lags) or 0.0 for share in (0.5, 0.99))
    click.echo(
        f"at {rate} transfers/s (p99 {found['p99_ms']:.0f} ms), commit to sink:"
        f" p50 {p50_s:.3f} s, p99 {p99_s:.3f} s"
        f" ({max(lags.values()):.0f} deliveries of {rate * seconds})"
    )


async def _settled(worker: Side) -> list[Sample]:
    """The metrics when the number of deliveries has stopped growing."""
    last = -1.0
    while (count := _delivered(samples := await worker.running.metrics())) != last:
        last = count
        await asyncio.sleep(1.0)
    return samples


def _delivered(samples: Iterable[Sample]) -> float:
    return sum(each.value for each in samples if each.name == "transferd_notifications_total")


def _lags(samples: Iterable[Sample]) -> dict[float, float]:
    """Upper bound in seconds -> deliveries of the log sink with at most this lag."""
    name = "transferd_notification_lag_seconds_bucket"
    return {
        float(each.labels["le"]): each.value
        for each in samples
        if each.name == name and each.labels["sink"] == "log"
    }


def _rounded(rates: list[float]) -> str:
    return ", ".join(f"{rate:.0f}" for rate in rates)


if __name__ == "__main__":
    main()
