"""A lane: few deliveries at a time, in order for each wallet, and a bounded number held."""

import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as some

from tests.support.waiting import until
from tests.unit.samples import Clock
from transferd.config import Limits
from transferd.notifications.lanes import Job, Lane


class Endpoint:
    """A lane whose deliveries last until the test ends them."""

    def __init__(self, **limits: float) -> None:
        self.clock = Clock()
        self.has_spare = False
        self.lane = Lane(
            replace(Limits(), **limits),  # type: ignore[arg-type]
            self.clock,
            lambda: self.has_spare,
        )
        self.started: list[str] = []
        self.running: dict[str, asyncio.Future[bool]] = {}
        self.parked: list[str] = []

    async def submit(self, name: str, *wallets: str) -> None:
        """Hand in a delivery and let it begin, if it may."""

        async def run() -> bool:
            self.started.append(name)
            self.running[name] = asyncio.get_running_loop().create_future()
            try:
                return await self.running[name]
            finally:
                del self.running[name]

        self.lane.submit(Job(wallets, run, lambda: self.parked.append(name)))
        await settled()

    def has_room(self) -> bool:
        """Whether another one may be held now."""
        return self.lane.has_room

    def is_idle(self) -> bool:
        """Whether the lane could be forgotten now."""
        return self.lane.is_idle

    async def end(self, name: str, *, well: bool = True) -> None:
        """Let a delivery end, and others begin."""
        self.running[name].set_result(well)
        await settled()


async def settled() -> None:
    """Every task has come as far as it can without the test."""
    for _ in range(5):
        await asyncio.sleep(0)


# Order


async def test_deliveries_of_one_wallet_follow_each_other() -> None:
    endpoint = Endpoint()
    for name in ("first", "second", "third"):
        await endpoint.submit(name, "ada")
    assert endpoint.started == ["first"]
    await endpoint.end("first")
    assert endpoint.started == ["first", "second"]
    await endpoint.end("second", well=False)
    assert endpoint.started == ["first", "second", "third"]


async def test_deliveries_of_different_wallets_do_not_wait_for_each_other() -> None:
    endpoint = Endpoint()
    await endpoint.submit("of ada", "ada")
    await endpoint.submit("of bob", "bob")
    await endpoint.submit("of nobody")
    await endpoint.submit("of nobody else")
    assert endpoint.started == ["of ada", "of bob", "of nobody", "of nobody else"]


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


async def test_what_is_free_to_go_overtakes_what_has_to_wait() -> None:
    endpoint = Endpoint()
    await endpoint.submit("of ada", "ada")
    await endpoint.submit("ada again", "ada")
    await endpoint.submit("of bob", "bob")
    assert endpoint.started == ["of ada", "of bob"]


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


async def test_a_lane_holds_its_share_and_more_while_there_is_room_that_nobody_needs() -> None:
    endpoint = Endpoint(endpoint_held_max=2)
    await endpoint.submit("first", "ada")
    assert endpoint.has_room()
    await endpoint.submit("second", "ada")
    assert not endpoint.has_room()
    endpoint.has_spare = True
    assert endpoint.has_room()
    await endpoint.submit("third", "ada")
    assert endpoint.has_room()
    endpoint.has_spare = False
    await endpoint.end("first")
    assert not endpoint.has_room()
    await endpoint.end("second")
    assert endpoint.has_room()
    await endpoint.lane.stop()


async def test_while_everything_fails_there_is_room_only_for_what_can_be_tried() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=2)
    await endpoint.submit("bad", "ada")
    await endpoint.end("bad", well=False)
    for name in ("worse", "third", "fourth"):
        assert endpoint.has_room(), "a single failure is no trouble"
        await endpoint.submit(name, "ada")
    await endpoint.end("worse", well=False)
    assert not endpoint.has_room()
    await endpoint.end("third", well=False)
    assert endpoint.has_room()
    await endpoint.submit("fifth", "bob")
    assert not endpoint.has_room()
    await endpoint.end("fifth")
    assert endpoint.has_room()
    await endpoint.submit("sixth", "ada")
    assert endpoint.has_room(), "one went well, so it is trusted again"
    await endpoint.lane.stop()


async def test_an_endpoint_that_hangs_is_in_trouble_before_it_fails() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=2, endpoint_trouble_s=2.0)
    await endpoint.submit("first", "ada")
    await endpoint.submit("second", "bob")
    endpoint.clock.now = 2.0
    assert endpoint.has_room()
    endpoint.clock.now = 2.1
    assert not endpoint.has_room()
    await endpoint.end("first")
    assert endpoint.has_room(), "some answer, so it does not hang"
    endpoint.clock.now = 4.2
    await endpoint.submit("third", "cy")
    assert not endpoint.has_room()
    await endpoint.lane.stop()


async def test_what_waits_behind_its_own_wallet_is_watched_as_well() -> None:
    endpoint = Endpoint(endpoint_trouble_s=0.01)
    await endpoint.submit("first", "ada")
    await endpoint.submit("second", "ada")
    endpoint.clock.now = 0.02
    await until(lambda: endpoint.parked == ["second"])
    assert set(endpoint.running) == {"first"}
    await endpoint.end("first")
    assert endpoint.is_idle()


async def test_what_has_waited_for_long_is_parked_though_the_endpoint_answers() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=1, endpoint_trouble_s=0.01, endpoint_hold_s=1.0)
    for name in ("first", "second", "third"):
        await endpoint.submit(name, "ada")
    endpoint.clock.now = 0.995
    await endpoint.end("first")
    endpoint.clock.now = 1.0
    await asyncio.sleep(0.02)
    assert endpoint.parked == []
    endpoint.clock.now = 1.001
    await until(lambda: endpoint.parked == ["third"])
    await endpoint.end("second")
    assert endpoint.is_idle()


async def test_what_waits_behind_an_endpoint_that_hangs_is_parked_and_what_runs_is_not() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=2, endpoint_trouble_s=0.01)
    await endpoint.submit("first", "ada")
    for name in ("second", "third"):
        await endpoint.submit(name, "ada", "bob")
    await endpoint.submit("fourth", "cy")
    await endpoint.submit("fifth", "dan")
    await asyncio.sleep(0.02)
    assert endpoint.parked == [], "by its clock it has only just begun"
    endpoint.clock.now = 0.02
    await until(lambda: endpoint.parked == ["second", "third", "fifth"])
    assert set(endpoint.running) == {"first", "fourth"}
    await endpoint.end("first")
    assert set(endpoint.running) == {"fourth"}
    await endpoint.submit("bob again", "bob")
    assert set(endpoint.running) == {"fourth", "bob again"}
    await endpoint.lane.stop()


# Its end


async def test_a_lane_is_idle_when_nothing_is_held_and_nothing_remembered() -> None:
    endpoint = Endpoint()
    assert endpoint.is_idle()
    await endpoint.submit("bad", "ada")
    assert not endpoint.is_idle()
    await endpoint.end("bad", well=False)
    assert not endpoint.is_idle()
    await endpoint.submit("good", "ada")
    await endpoint.end("good")
    assert endpoint.is_idle()
    assert repr(endpoint.lane) == "<Lane 0 of 0 running>"


async def test_a_stopped_lane_gives_up_and_begins_nothing_more() -> None:
    endpoint = Endpoint(endpoint_in_flight_max=1)
    await endpoint.submit("first", "ada")
    await endpoint.submit("second", "ada")
    await endpoint.submit("of bob", "bob")
    await endpoint.lane.stop()
    await endpoint.submit("late", "cy")
    assert endpoint.started == ["first"]
    assert endpoint.running == {}


# Whatever comes

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
