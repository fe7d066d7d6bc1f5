"""A lane: few deliveries at a time, in order for each wallet, and a bounded number held."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as some

from tests.support.waiting import until
from tests.unit.samples import settled
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store.deliveries import WaitingDelivery
from transferd.notifications.attempt import Attempt
from transferd.notifications.event import Event
from transferd.notifications.lane import Lane


class Endpoint:
    """A lane whose deliveries last until the test ends them, and are written at once."""

    def __init__(self, **limits: float) -> None:
        self.lane = Lane(
            replace(Limits(), **limits),  # type: ignore[arg-type]
            self._deliver,
            self._read,
        )
        self.started: list[str] = []
        self.running: dict[str, asyncio.Future[bool]] = {}
        self.readings = 0

    async def submit(self, name: str, *wallets: str) -> None:
        """Hand in a delivery and let it begin, if it may."""
        event = Event(name, "transfer.posted", datetime.now(UTC), wallets, None, {})
        delivery = WaitingDelivery("hook", name, DeliveryStatus.PENDING, 0, 0, "{}")
        self.lane.submit(Attempt(MAIN, delivery, event))
        await settled()

    async def _deliver(self, attempt: Attempt) -> bool:
        name = attempt.event.id
        self.started.append(name)
        self.running[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.running[name]
        finally:
            del self.running[name]
            self.lane.release(attempt)

    def _read(self) -> None:
        self.readings += 1

    def room(self) -> int:
        """How many more may be held now."""
        return self.lane.room(is_tight=False)

    def is_idle(self) -> bool:
        """Whether the lane could be forgotten now."""
        return self.lane.is_idle

    async def end(self, name: str, *, succeeds: bool = True) -> None:
        """Let a delivery end, and others begin."""
        self.running[name].set_result(succeeds)
        await settled()


# Order


async def test_deliveries_of_one_wallet_follow_each_other() -> None:
    endpoint = Endpoint()
    for name in ("first", "second", "third"):
        await endpoint.submit(name, "ada")
    assert endpoint.started == ["first"]
    await endpoint.end("first")
    assert endpoint.started == ["first", "second"]
    await endpoint.end("second", succeeds=False)
    assert endpoint.started == ["first", "second", "third"]


async def test_deliveries_of_different_wallets_do_not_wait_for_each_other() -> None:
    endpoint = Endpoint()
    await endpoint.submit("of ada", "ada")
    await endpoint.submit("of bob", "bob")
    await endpoint.submit("of no wallet")
    await endpoint.submit("of no other wallet")
    assert endpoint.started == ["of ada", "of bob", "of no wallet", "of no other wallet"]


async def test_a_delivery_of_two_wallets_waits_for_both_and_holds_both() -> None:
    endpoint = Endpoint()
    await endpoint.submit("of ada", "ada")
    await endpoint.submit("of bob", "bob")
    await endpoint.submit("of both", "ada", "bob")
    await endpoint.submit("ada again", "ada")
    await endpoint.submit("bob again", "bob")
    await endpoint.end("of ada")
    assert set(endpoint.running) == {"of bob"}
    await endpoint.end("of bob")
    assert set(endpoint.running) == {"of both"}
    await endpoint.end("of both")
    assert set(endpoint.running) == {"ada again", "bob again"}


# Bounds


async def test_only_so_many_run_at_a_time() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=2)
    for name in ("ada", "bob", "cy", "dan"):
        await endpoint.submit(f"of {name}", name)
    assert endpoint.started == ["of ada", "of bob"]
    assert repr(endpoint.lane) == "<Lane 2 of 4 running>"
    await endpoint.end("of bob")
    assert endpoint.started == ["of ada", "of bob", "of cy"]
    await endpoint.end("of ada")
    await endpoint.end("of cy")
    assert set(endpoint.running) == {"of dan"}


async def test_a_lane_has_room_for_so_many_and_for_fewer_while_memory_is_tight() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=2, endpoint_held_max=4)
    assert (endpoint.room(), endpoint.lane.room(is_tight=True)) == (4, 2)
    for name in ("first", "second", "third"):
        await endpoint.submit(name, "ada")
    assert (endpoint.room(), endpoint.lane.room(is_tight=True)) == (1, 0)
    await endpoint.end("first")
    assert endpoint.room() == 2
    await endpoint.end("second")
    await endpoint.end("third")


async def test_the_table_is_read_again_when_half_is_done() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=1, endpoint_held_max=4)
    for name in ("first", "second", "third", "fourth"):
        await endpoint.submit(name, "ada")
    endpoint.lane.has_more = True
    await endpoint.end("first")
    assert endpoint.readings == 0
    await endpoint.end("second")
    assert endpoint.readings == 1
    endpoint.lane.has_more = False
    await endpoint.end("third")
    assert endpoint.readings == 1
    await endpoint.end("fourth")


async def test_a_lane_pauses_when_as_many_in_a_row_fail_as_may_run() -> None:
    endpoint = Endpoint(
        endpoint_in_flight_max=2, endpoint_pause_first_s=0.05, endpoint_pause_max_s=0.05
    )
    for name in ("first", "second", "third", "fourth"):
        await endpoint.submit(name, "ada")
    await endpoint.end("first", succeeds=False)
    assert set(endpoint.running) == {"second"}
    await endpoint.end("second", succeeds=False)
    # The others are back in the table, and nothing is read for a while.
    assert endpoint.started == ["first", "second"]
    assert (endpoint.lane.held, endpoint.room(), endpoint.lane.has_more) == ({}, 0, True)
    assert not endpoint.lane.is_idle
    await until(lambda: endpoint.readings == 1)
    assert endpoint.room() == 2, "no more than can be tried at a time"
    await endpoint.submit("third", "ada")
    await endpoint.end("third")
    assert endpoint.room() == 256, "one has succeeded"


async def test_deliveries_after_a_pause_wait_for_those_that_run_since_before_it() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=3, endpoint_pause_first_s=0.01)
    await endpoint.submit("slow", "ada", "bob")
    await endpoint.submit("put back", "bob")
    for name in ("failed", "failed too", "failed last"):
        await endpoint.submit(name, name)
        await endpoint.end(name, succeeds=False)
    await until(lambda: endpoint.readings == 1)
    # The table is read: `put back` again, and an event of two wallets behind it and behind `slow`.
    await endpoint.submit("put back", "bob")
    await endpoint.submit("of both", "ada", "bob")
    await endpoint.submit("of cy", "cy")
    assert set(endpoint.running) == {"slow", "of cy"}
    await endpoint.end("slow")
    assert set(endpoint.running) == {"put back", "of cy"}
    await endpoint.end("put back")
    assert set(endpoint.running) == {"of both", "of cy"}
    await endpoint.end("of both")
    await endpoint.end("of cy")


async def test_one_success_ends_a_row_of_failures() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=2)
    for name, succeeds in (("a", False), ("b", True), ("c", False), ("d", True)):
        await endpoint.submit(name, "ada")
        await endpoint.end(name, succeeds=succeeds)
    assert endpoint.room() > 2


# Its end


async def test_a_lane_is_idle_when_nothing_is_held_and_nothing_known_to_wait() -> None:
    endpoint = Endpoint()
    assert endpoint.is_idle()
    await endpoint.submit("bad", "ada")
    assert not endpoint.is_idle()
    await endpoint.end("bad", succeeds=False)
    assert endpoint.is_idle()
    endpoint.lane.has_more = True
    assert not endpoint.is_idle()
    endpoint.lane.has_more, endpoint.lane.is_being_read = False, True
    assert not endpoint.is_idle()
    assert repr(endpoint.lane) == "<Lane 0 of 0 running>"


async def test_a_stopped_lane_begins_nothing_more() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=1)
    await endpoint.submit("first", "ada")
    await endpoint.submit("second", "ada")
    await endpoint.submit("of bob", "bob")
    endpoint.lane.stop()
    await endpoint.end("first")
    assert endpoint.started == ["first"]
    assert endpoint.is_idle()


# Any order of ends

_WALLETS = some.lists(some.sampled_from("abcd"), max_size=2, unique=True)


@given(
    deliveries=some.lists(_WALLETS, min_size=1, max_size=20),
    choices=some.lists(some.integers(0, 19), min_size=20, max_size=20),
    in_flight_max=some.integers(1, 4),
)
def test_each_wallet_is_served_in_order_and_everything_comes_to_its_end(
    deliveries: list[list[str]], choices: list[int], in_flight_max: int
) -> None:
    async def play() -> Endpoint:
        endpoint = Endpoint(endpoint_in_flight_max=in_flight_max)
        names = [f"{number} {' '.join(wallets)}" for number, wallets in enumerate(deliveries)]
        for name, wallets in zip(names, deliveries, strict=True):
            await endpoint.submit(name, *wallets)
        for choice in choices:
            running = list(endpoint.running)
            busy = [wallet for name in running for wallet in name.split()[1:]]
            assert len(running) <= in_flight_max
            assert len(busy) == len(set(busy)), "two deliveries of a wallet at the same time"
            if running:
                await endpoint.end(running[choice % len(running)])
        return endpoint

    endpoint = asyncio.run(play())
    assert len(endpoint.started) == len(deliveries)
    assert endpoint.is_idle()
    for wallet in "abcd":
        numbers = [int(name.split()[0]) for name in endpoint.started if wallet in name.split()[1:]]
        assert numbers == sorted(numbers)
