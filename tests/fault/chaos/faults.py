"""What can go wrong, by name; each is injected, held and healed by one `async with`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple

from tests.fault.chaos.topology import ChaosTopology
from tests.support.full_disk import Full
from tests.support.proxy import Cut

# Injects on entry and heals on exit; says in between what was hit. The choices are the Random's.
Strike = Callable[[ChaosTopology, Random], AbstractAsyncContextManager[str]]

_HOUR_S = 3600.0
_FOR_EVER = 1_000_000
# There and back well below the 0.25 s after which Redis would be given up.
_DELAY_S = 0.04


@dataclass(frozen=True)
class Fault:
    """`hold_s` is the shortest and the longest time to let it last.

    `strike` begins it on entry and ends it on exit, except that it does not wait until all is well
    again: `ChaosTopology.until_ready` does.
    """

    name: str
    sentence: str
    hold_s: tuple[float, float]
    strike: Strike

    @property
    def victim(self) -> str:
        """The last word of the name: the part that cannot be reached, or what else it is about."""
        return self.name.rpartition("-")[2]


class Planned(NamedTuple):
    """A fault at its time; `seed` is for the `Random` that its `strike` gets."""

    at_s: float
    fault: Fault
    hold_s: float
    seed: int


@asynccontextmanager
async def _killed(topology: ChaosTopology, random: Random, part: str) -> AsyncIterator[str]:
    name = _one_of(topology, random, part)
    await topology.kill(name)
    try:
        yield f"{name} is killed"
    finally:
        await topology.restart(name)


@asynccontextmanager
async def _hung(topology: ChaosTopology, random: Random, part: str) -> AsyncIterator[str]:
    name = _one_of(topology, random, part)
    topology.pause(name)
    try:
        yield f"{name} hangs"
    finally:
        topology.resume(name)


@asynccontextmanager
async def _cut(topology: ChaosTopology, random: Random, part: str) -> AsyncIterator[str]:
    name = _link_of(topology, random, part)
    await topology.links[name].refuse()
    try:
        yield f"{name} is cut and refuses"
    finally:
        await topology.links[name].heal()


@asynccontextmanager
async def _black_hole(topology: ChaosTopology, random: Random, part: str) -> AsyncIterator[str]:
    name = _link_of(topology, random, part)
    # What a network that went away does depends on whether it comes back before TCP gives up.
    loses = random.random() < 0.5
    proxy = topology.links[name]
    (proxy.swallow if loses else proxy.stall)()
    try:
        yield f"{name} {'swallows all' if loses else 'lets nothing through'}"
    finally:
        await proxy.heal()


@asynccontextmanager
async def _slowed(topology: ChaosTopology, random: Random, link: str) -> AsyncIterator[str]:
    name = _link_of(topology, random, link)
    topology.links[name].delay_s = _DELAY_S
    try:
        yield f"{name} takes {_DELAY_S:g} s in each direction"
    finally:
        await topology.links[name].heal()


@asynccontextmanager
async def _cut_at_commit(
    topology: ChaosTopology, random: Random, cuts: Sequence[Cut]
) -> AsyncIterator[str]:
    name = _link_of(topology, random, "replica-postgres")
    cut, times = random.choice(cuts), random.randint(1, 5)
    topology.links[name].arm(cut, times=times)
    try:
        yield f"{name} is cut at the next {times} COMMITs, {cut.value}"
    finally:
        await topology.links[name].heal()


@asynccontextmanager
async def _disk_full(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    step = random.choice(list(Full))
    proxies = [proxy for name, proxy in topology.links.items() if name.endswith("-postgres")]
    for proxy in proxies:
        proxy.fill_disk(step, times=_FOR_EVER)
    try:
        yield f"the disk of postgres has no room for {step.value}"
    finally:
        for proxy in proxies:
            await proxy.heal()


@asynccontextmanager
async def _flushed(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    await topology.flush_redis()
    yield "redis is empty"


@asynccontextmanager
async def _starved(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    await topology.starve_redis()
    try:
        yield "redis evicts nearly everything"
    finally:
        await topology.feed_redis()


@asynccontextmanager
async def _slow(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    seconds = random.uniform(0.02, 0.1)
    await topology.slow_commits(seconds)
    try:
        yield f"the disk of postgres takes {seconds * 1000:.0f} ms longer for each COMMIT"
    finally:
        await topology.slow_commits(0.0)


@asynccontextmanager
async def _clock_jumped(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    name = _one_of(topology, random, "replica")
    hours = random.choice((-30, -5, -1, 1, 5, 30))
    topology.jump_clock(name, hours * _HOUR_S)
    try:
        yield f"the clock of {name} jumps by {hours} hours"
    finally:
        topology.jump_clock(name, 0.0)


@asynccontextmanager
async def _database_clock_jumped(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    # Ahead first: an instant that a reader was told of by a clock that is set back is not settled.
    seconds = random.uniform(2.0, 4.0)
    await topology.jump_database_clock(seconds)
    try:
        yield f"the clock of postgres jumps ahead by {seconds:.1f} s"
    finally:
        await topology.jump_database_clock(0.0)


@asynccontextmanager
async def _restarted(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    names = random.sample(topology.replicas, len(topology.replicas))
    for name in names:
        await topology.restart(name)
        # The next one only when this one serves again, as in any rolling restart.
        await topology.until_ready()
    yield f"{' and '.join(names)} were restarted in turn"


@asynccontextmanager
async def _two_at_once(topology: ChaosTopology, random: Random) -> AsyncIterator[str]:
    first = random.choice(_SINGLE)
    # Not two of the same part: a Redis that hangs cannot be told to forget everything.
    second = random.choice([fault for fault in _SINGLE if fault.victim != first.victim])
    async with first.strike(topology, random) as said, second.strike(topology, random) as more:
        yield f"{said} and {more}"


def _one_of(topology: ChaosTopology, random: Random, part: str) -> str:
    """The name of a part; of any of the replicas if just `replica`."""
    return random.choice(topology.replicas) if part == "replica" else part


def _link_of(topology: ChaosTopology, random: Random, link: str) -> str:
    """The name of a link; `replica` in it stands for any of them."""
    return link.replace("replica", _one_of(topology, random, "replica"))


_PARTS: dict[str, tuple[float, float]] = {
    # Stopped for longer than what the others wait for them: a claim and a statement for 3 s, a
    # transaction that idles for 2 s, a call to Redis for 0.25 s, one to RabbitMQ for 5 s.
    "replica": (3.5, 6.0),
    "worker": (2.5, 5.0),
    "postgres": (4.0, 7.0),
    "redis": (0.5, 3.0),
    "rabbitmq": (5.5, 8.0),
}
_LINKS = (
    "nginx-replica",
    "replica-postgres",
    "replica-redis",
    "worker-postgres",
    "worker-rabbitmq",
)


def outage(seconds: float) -> Fault:
    """RabbitMQ killed and away for so long."""
    return Fault(
        f"outage-rabbitmq-{seconds:g}",
        f"RabbitMQ is killed and comes back after {seconds:g} s.",
        (seconds, seconds),
        partial(_killed, part="rabbitmq"),
    )


# The pairs of two-at-once: what is over quickly, and no fault of its own kind.
_SINGLE: list[Fault] = [
    *(
        Fault(
            f"kill-{part}",
            f"SIGKILL to {part}; it is started again afterwards.",
            (0.0, 3.0),
            partial(_killed, part=part),
        )
        for part in _PARTS
    ),
    *(
        Fault(
            f"hang-{part}",
            f"SIGSTOP to {part} for longer than the others wait, then SIGCONT.",
            hold_s,
            partial(_hung, part=part),
        )
        for part, hold_s in _PARTS.items()
    ),
    *(
        Fault(
            f"cut-{link}",
            f"All connections of {link} are cut, and new ones refused.",
            (0.2, 3.0),
            partial(_cut, part=link),
        )
        for link in _LINKS
    ),
    *(
        Fault(
            f"blackhole-{link}",
            f"Connections of {link} stay open, new ones are taken, and nothing arrives.",
            (1.0, 5.0),
            partial(_black_hole, part=link),
        )
        for link in _LINKS
    ),
    Fault(
        "slow-replica-redis",
        "All that goes between a replica and Redis takes its time, and nothing fails.",
        (1.0, 3.0),
        partial(_slowed, link="replica-redis"),
    ),
    Fault(
        "cut-in-commit",
        "Connections of a replica to PostgreSQL are cut before or while a COMMIT is done.",
        (1.0, 2.0),
        partial(_cut_at_commit, cuts=(Cut.BEFORE, Cut.IN_FLIGHT)),
    ),
    Fault(
        "cut-after-commit",
        "Connections of a replica to PostgreSQL are cut between a COMMIT and its answer.",
        (1.0, 2.0),
        partial(_cut_at_commit, cuts=(Cut.AFTER,)),
    ),
    Fault("flush-redis", "Redis loses everything.", (0.0, 1.0), _flushed),
    Fault("evict-redis", "Redis has no memory and evicts.", (0.5, 3.0), _starved),
    Fault("disk-full", "PostgreSQL has no room for what is written.", (0.5, 3.0), _disk_full),
    Fault("slow-postgres", "The disk of PostgreSQL is slow to write.", (1.0, 3.0), _slow),
    Fault(
        "clock-jump", "The clock of a replica jumps by hours, and back.", (1.0, 3.0), _clock_jumped
    ),
    Fault(
        "clock-jump-postgres",
        "The clock of PostgreSQL jumps ahead by seconds, and back.",
        (0.5, 1.5),
        _database_clock_jumped,
    ),
]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        *_SINGLE,
        Fault(
            "restart-replicas",
            "SIGTERM to each replica in turn, the next one when it serves again.",
            (0.0, 0.0),
            _restarted,
        ),
        outage(10.0),
        outage(60.0),
        Fault("two-at-once", "Two other faults at the same time.", (1.0, 6.0), _two_at_once),
    )
}


async def strike(planned: Planned, topology: ChaosTopology, report: Callable[[str], None]) -> None:
    """Let a planned fault happen from beginning to end, now."""
    async with planned.fault.strike(topology, Random(planned.seed)) as said:
        report(f"{planned.fault.name}: {said}, for {planned.hold_s:.1f} s")
        await asyncio.sleep(planned.hold_s)
