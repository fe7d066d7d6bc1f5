"""The faults by name."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.fault.chaos.topology import ChaosDeployment
from tests.support.full_disk import Full
from tests.support.proxy import Cut

# Ends a fault.
Heal = Callable[[], Awaitable[None] | None]
# Begins a fault, with random choices. Returns a sentence that describes it, and the function that
# ends it.
Begin = Callable[[ChaosDeployment, Random], Awaitable[tuple[str, Heal]]]

_HOUR_S = 3600.0
_ALWAYS = 1_000_000
# Both directions together are well below the 0.25 s after which a call to Redis fails.
_DELAY_S = 0.04


@dataclass(frozen=True)
class Fault:
    """A fault. `hold_s` is its shortest and its longest duration."""

    name: str
    hold_s: tuple[float, float]
    begin: Begin

    @property
    def victim(self) -> str:
        """The last word of the name: the part that the fault affects."""
        return self.name.rpartition("-")[2]

    @asynccontextmanager
    async def inject(self, deployment: ChaosDeployment, random: Random) -> AsyncIterator[str]:
        """Begin the fault on entry and end it on exit, without waiting for readiness.

        Yields a sentence that describes the fault.
        """
        sentence, heal = await self.begin(deployment, random)
        try:
            yield sentence
        finally:
            if (healing := heal()) is not None:
                await healing


async def _killed(deployment: ChaosDeployment, random: Random, part: str) -> tuple[str, Heal]:
    name = _one_of(deployment, random, part)
    await deployment.part(name).kill()
    return f"{name} is killed", partial(deployment.restart, name)


async def _hung(deployment: ChaosDeployment, random: Random, part: str) -> tuple[str, Heal]:
    name = _one_of(deployment, random, part)
    deployment.part(name).pause()
    return f"{name} hangs", deployment.part(name).resume


async def _cut(deployment: ChaosDeployment, random: Random, link: str) -> tuple[str, Heal]:
    name = _link_of(deployment, random, link)
    await deployment.links[name].refuse()
    return f"{name} is cut and refuses", deployment.links[name].heal


async def _black_hole(deployment: ChaosDeployment, random: Random, link: str) -> tuple[str, Heal]:
    name = _link_of(deployment, random, link)
    # A real network may recover before or after TCP gives up: data arrive late, or are lost.
    loses = random.random() < 0.5
    proxy = deployment.links[name]
    (proxy.swallow if loses else proxy.stall)()
    return f"{name} {'loses all data' if loses else 'delivers no data'}", proxy.heal


async def _slowed(deployment: ChaosDeployment, random: Random) -> tuple[str, Heal]:
    name = _link_of(deployment, random, "replica-redis")
    deployment.links[name].delay_s = _DELAY_S
    return f"{name} takes {_DELAY_S:g} s in each direction", deployment.links[name].heal


async def _cut_at_commit(
    deployment: ChaosDeployment, random: Random, cuts: Sequence[Cut]
) -> tuple[str, Heal]:
    name = _link_of(deployment, random, "replica-postgres")
    cut, times = random.choice(cuts), random.randint(1, 5)
    deployment.links[name].arm(cut, times=times)
    return f"{name} is cut at the next {times} COMMITs, {cut.value}", deployment.links[name].heal


async def _disk_full(deployment: ChaosDeployment, random: Random) -> tuple[str, Heal]:
    step = random.choice(list(Full))
    names = [name for name in deployment.links if name.endswith("-postgres")]
    for name in names:
        deployment.links[name].fill_disk(step, times=_ALWAYS)
    sentence = f"the disk of postgres has no room for {step.value}"
    return sentence, partial(deployment.heal_links, names)


async def _flushed(deployment: ChaosDeployment, _: Random) -> tuple[str, Heal]:
    await deployment.flush_redis()
    return "redis is empty", lambda: None


async def _evicting(deployment: ChaosDeployment, _: Random) -> tuple[str, Heal]:
    await deployment.limit_redis_memory()
    return "redis evicts almost all data", deployment.unlimit_redis_memory


async def _slow(deployment: ChaosDeployment, random: Random) -> tuple[str, Heal]:
    seconds = random.uniform(0.02, 0.1)
    await deployment.slow_commits(seconds)
    sentence = f"the disk of postgres takes {seconds * 1000:.0f} ms longer for each COMMIT"
    return sentence, partial(deployment.slow_commits, 0.0)


async def _clock_jumped(deployment: ChaosDeployment, random: Random) -> tuple[str, Heal]:
    name = _one_of(deployment, random, "replica")
    hours = random.choice((-30, -5, -1, 1, 5, 30))
    deployment.jump_clock(name, hours * _HOUR_S)
    sentence = f"the clock of {name} jumps by {hours} hours"
    return sentence, partial(deployment.jump_clock, name, 0.0)


async def _database_clock_jumped(deployment: ChaosDeployment, random: Random) -> tuple[str, Heal]:
    # Only ahead: after a jump back, an instant that was in the past would be in the future.
    seconds = random.uniform(2.0, 4.0)
    await deployment.jump_database_clock(seconds)
    sentence = f"the clock of postgres jumps ahead by {seconds:.1f} s"
    return sentence, partial(deployment.jump_database_clock, 0.0)


async def _restarted(deployment: ChaosDeployment, random: Random) -> tuple[str, Heal]:
    names = random.sample(deployment.replicas, len(deployment.replicas))
    for name in names:
        await deployment.restart(name)
        # As in a rolling restart, the next one waits until this one is ready.
        await deployment.until_ready()
    return f"{' and '.join(names)} were restarted in turn", lambda: None


async def _two_at_once(deployment: ChaosDeployment, random: Random) -> tuple[str, Heal]:
    first = random.choice(_SINGLE)
    # Two different parts: a Redis that hangs cannot be flushed, for example.
    second = random.choice([fault for fault in _SINGLE if fault.victim != first.victim])
    async with AsyncExitStack() as exits:
        injections = [each.inject(deployment, random) for each in (first, second)]
        sentences = [await exits.enter_async_context(each) for each in injections]
        return " and ".join(sentences), exits.pop_all().aclose


def _one_of(deployment: ChaosDeployment, random: Random, part: str) -> str:
    """The name of a part; `replica` stands for any replica."""
    return random.choice(deployment.replicas) if part == "replica" else part


def _link_of(deployment: ChaosDeployment, random: Random, link: str) -> str:
    """The name of a link; `replica` in it stands for any replica."""
    return link.replace("replica", _one_of(deployment, random, "replica"))


_PARTS: dict[str, tuple[float, float]] = {
    # Longer than the timeouts of the others: 3 s for a claim and a statement, 2 s for an idle
    # transaction, 0.25 s for a call to Redis, 5 s for a call to RabbitMQ.
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
_CUTS_IN_COMMIT = (Cut.BEFORE, Cut.IN_FLIGHT)


# The faults that two-at-once combines: those that are short.
_SINGLE: list[Fault] = [
    *(Fault(f"kill-{part}", (0.0, 3.0), partial(_killed, part=part)) for part in _PARTS),
    *(Fault(f"hang-{part}", hold_s, partial(_hung, part=part)) for part, hold_s in _PARTS.items()),
    *(Fault(f"cut-{link}", (0.2, 3.0), partial(_cut, link=link)) for link in _LINKS),
    *(Fault(f"blackhole-{link}", (1.0, 5.0), partial(_black_hole, link=link)) for link in _LINKS),
    Fault("slow-replica-redis", (1.0, 3.0), _slowed),
    Fault("cut-in-commit", (1.0, 2.0), partial(_cut_at_commit, cuts=_CUTS_IN_COMMIT)),
    Fault("cut-after-commit", (1.0, 2.0), partial(_cut_at_commit, cuts=(Cut.AFTER,))),
    Fault("flush-redis", (0.0, 1.0), _flushed),
    Fault("evict-redis", (0.5, 3.0), _evicting),
    Fault("disk-full", (0.5, 3.0), _disk_full),
    Fault("slow-postgres", (1.0, 3.0), _slow),
    Fault("clock-jump", (1.0, 3.0), _clock_jumped),
    Fault("clock-jump-postgres", (0.5, 1.5), _database_clock_jumped),
]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        *_SINGLE,
        Fault("restart-replicas", (0.0, 0.0), _restarted),
        Fault("outage-rabbitmq-10", (10.0, 10.0), partial(_killed, part="rabbitmq")),
        Fault("outage-rabbitmq-60", (60.0, 60.0), partial(_killed, part="rabbitmq")),
        Fault("two-at-once", (1.0, 6.0), _two_at_once),
    )
}
