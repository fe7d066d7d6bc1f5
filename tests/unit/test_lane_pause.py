"""A lane that pauses while an attempt runs keeps the order of that attempt's wallets."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from tests.support.waiting import until
from transferd.config import Limits
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store.deliveries import WaitingDelivery
from transferd.notifications.attempt import Attempt
from transferd.notifications.event import Event
from transferd.notifications.lane import Lane

LIMITS = replace(Limits(), endpoint_in_flight_max=3, endpoint_pause_first_s=0.01)


def attempt(id: str, *wallets: str) -> Attempt:
    event = Event(id, "transfer.posted", datetime.now(UTC), wallets, None, {})
    return Attempt(WaitingDelivery("hook", id, DeliveryStatus.PENDING, 0, 0, "{}"), event)


async def test_what_is_read_after_a_pause_waits_for_what_runs_since_before() -> None:
    started: list[str] = []
    endings: dict[str, asyncio.Future[bool]] = {}
    is_read = asyncio.Event()

    async def deliver(attempt: Attempt) -> bool:
        started.append(attempt.event.id)
        endings[attempt.event.id] = asyncio.get_running_loop().create_future()
        return await endings[attempt.event.id]

    lane = Lane(LIMITS, deliver, is_read.set)
    lane.submit(attempt("slow", "ada", "bob"))
    lane.submit(attempt("put back", "bob"))
    for id in ("failed", "failed too", "failed last"):
        lane.submit(attempt(id, id))
        await until(lambda: id in endings)  # noqa: B023 it is called before the next one
        endings[id].set_result(False)
    await is_read.wait()
    assert len(lane.held) == 4
    # The table is read: what was put back, and an event of two wallets behind it and behind `slow`.
    lane.submit(attempt("put back", "bob"))
    lane.submit(attempt("of both", "ada", "bob"))
    lane.submit(attempt("of cy", "cy"))
    await until(lambda: "of cy" in endings)
    assert started[4:] == ["of cy"]
    endings["slow"].set_result(True)
    await until(lambda: "put back" in endings)
    assert "of both" not in started
    endings["put back"].set_result(True)
    await until(lambda: "of both" in endings)
    for id in ("of both", "of cy"):
        endings[id].set_result(True)
    await until(lambda: not lane.running)
