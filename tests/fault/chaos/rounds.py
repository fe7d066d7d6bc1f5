"""A round: load, a fault in the middle of it, quiet, and the verdict of the checker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import aiohttp
from aiohttp import web

from loadtest.proof.check import check
from loadtest.proof.violations import Violation
from tests.fault.chaos.books import Books
from tests.fault.chaos.client import READS, Client, is_open
from tests.fault.chaos.faults import FAULTS, Planned
from tests.fault.chaos.faults import strike as strike_of
from tests.fault.chaos.races import RACES
from tests.fault.chaos.topology import ChaosTopology
from tests.support.api import Api
from tests.support.receivers import Answer, Receiver, receiving
from transferd.devstack import StackError

_WALLETS = 20
_BALANCE = 10_000
_CACHE_FAILURES = "transferd_cache_failures_total"
# Transfers that are acknowledged before a fault comes, however slow the machine is.
_AT_STAKE = 50


@dataclass(frozen=True)
class Pace:
    """How a round is played: times in seconds, most of them an upper bound of a wait.

    Load for about `quiet_s`, the fault, and half as much load after it. `events_s` is how long no
    event comes any more. `reads` is their share in the load, `pause_s` what each client rests after
    an answer, and `receiver_s` what the receiver of events needs for each until the fault is over.
    After it the service has to serve again within `serving_s`; `recovery_s` is how long that is
    waited for, to say how long it took.
    """

    quiet_s: float = 1.5
    hold_s_max: float = 60.0
    serving_s: float = 5.0
    recovery_s: float = 30.0
    settle_s: float = 60.0
    events_s: float = 60.0
    reads: float = READS
    pause_s: float = 0.0
    receiver_s: float = 0.0


_USUAL = Pace()


@dataclass
class Result:
    """A round: what was done, how it went on, and what was wrong. Rates are 201s per second."""

    fault: str
    seed: int
    what: str = ""
    operations: int = 0
    acknowledged: int = 0
    # Operations of which a try got no answer, and those of which one got a 5xx.
    unknown: int = 0
    failed: int = 0
    rate_before: float = 0.0
    rate_during: float = 0.0
    # From the end of the fault to the first new 201; None if there was none.
    recovery_s: float | None = None
    # From the end of the fault until the broker had all events, and until they were delivered.
    published_s: float = 0.0
    drained_s: float = 0.0
    events: int = 0
    violations: list[Violation] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.violations

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


# What a round does; it returns when the last of it was over, on the clock of the loop.
Act = Callable[[Client, Result], Awaitable[float]]


class Stage:
    """A topology with a receiver of all its events, on which rounds are played."""

    def __init__(self, topology: ChaosTopology, receiver: Receiver, books: Books) -> None:
        self.topology = topology
        self._receiver = receiver
        self.books = books
        self._count = 0

    async def play(
        self,
        fault: str,
        seed: int,
        report: Callable[[str], None],
        *,
        pace: Pace = _USUAL,
    ) -> Result:
        """One round."""
        # All that is chosen is chosen now: later the client and the fault would race for it.
        random = Random(seed)
        hold_s = min(random.uniform(*FAULTS[fault].hold_s), pace.hold_s_max)
        at_s = pace.quiet_s * random.uniform(0.7, 1.3)
        planned = Planned(at_s, FAULTS[fault], hold_s, random.getrandbits(32))

        async def act(client: Client, result: Result) -> float:
            return await self._load(client, result, planned, pace, report)

        # A worker or broker that is hit may deliver again, and retries overtake.
        ordered = not any(part in fault for part in ("worker", "rabbitmq", "two"))
        return await self._round(fault, seed, act, pace, ordered=ordered)

    async def race(self, name: str, seed: int, *, size: float = 1.0) -> Result:
        """One race, or a part of it: 0.1 is a tenth."""

        async def act(client: Client, result: Result) -> float:
            clock = asyncio.get_running_loop().time
            began_s = clock()
            result.violations += await RACES[name].run(client, client.wallets, size)
            ended_s = clock()
            tries = sum(len(each.tries) for each in client.history)
            result.what = f"{tries:,} requests in {ended_s - began_s:.1f} s"
            result.rate_before = result.rate_during = client.rate(began_s, ended_s)
            return ended_s

        # More than an endpoint that falls behind gets in order (docs/notifications.md).
        return await self._round(name, seed, act, _USUAL, ordered=False)

    async def _round(self, name: str, seed: int, act: Act, pace: Pace, *, ordered: bool) -> Result:
        result = Result(name, seed)
        # A round that is played again in the same ledger has keys of its own.
        self._count += 1
        run = f"chaos-{name}-{seed}-{self._count}"
        wallets = await self._open_wallets()
        before = await self.books.wallets()
        arrived = len(self._receiver.received)
        failures = await self.topology.counted(_CACHE_FAILURES)
        client = Client(
            self.topology.url, run, wallets, Random(seed), reads=pace.reads, pause_s=pace.pause_s
        )
        try:
            healed_s = await act(client, result)
            await client.settle(pace.settle_s)
            await client.look_back()
        finally:
            await client.close()
        result.operations = len(client.history)
        result.acknowledged = len(client.acknowledged_s)
        result.unknown = sum(any(one.status == 0 for one in each.tries) for each in client.history)
        result.failed = sum(any(one.status >= 500 for one in each.tries) for each in client.history)
        published_s = await self._until_delivered(before, arrived, pace.events_s)
        result.published_s = published_s - healed_s
        result.drained_s = asyncio.get_running_loop().time() - healed_s
        ledger = await self.books.ledger(run, before, self._receiver.received[arrived:])
        result.events = len(ledger.deliveries)
        result.violations += check(
            client.history,
            ledger,
            # If Redis was only slow, and never given up, no read takes back what was told.
            strict_reads=name.startswith("slow-")
            and await self.topology.counted(_CACHE_FAILURES) == failures,
            events=True,
            ordered_events=ordered,
        )
        result.violations += [
            Violation("unsettled", f"{each.key} is open after all")
            for each in client.history
            if is_open(each)
        ]
        return result

    async def _load(
        self,
        client: Client,
        result: Result,
        planned: Planned,
        pace: Pace,
        report: Callable[[str], None],
    ) -> float:
        """When the fault was over."""
        clock = asyncio.get_running_loop().time
        self._receiver.answer = _after(pace.receiver_s) if pace.receiver_s else None
        client.start()
        began_s = clock()
        await asyncio.sleep(planned.at_s)
        await client.until_so_many(_AT_STAKE, pace.recovery_s)
        struck_s = clock()
        result.rate_before = client.rate(began_s + 0.3, struck_s)

        def tell(text: str) -> None:
            result.what = text
            report(text)

        await strike_of(planned, self.topology, tell)
        healed_s = clock()
        self._receiver.answer = None
        result.rate_during = client.rate(struck_s, healed_s)
        result.recovery_s = await client.until_acknowledged(healed_s, pace.recovery_s)
        if result.recovery_s is None:
            text = f"no transfer within {pace.recovery_s:g} s of the end of the fault"
            result.violations.append(Violation("not-recovered", text))
        elif result.recovery_s > pace.serving_s:
            text = f"the first transfer came {result.recovery_s:.1f} s after the end of the fault"
            result.violations.append(Violation("slow-recovery", text))
        await asyncio.sleep(pace.quiet_s * 0.5)
        await client.stop()
        try:
            await self.topology.until_ready(pace.recovery_s)
        except StackError as error:
            result.violations.append(Violation("not-recovered", str(error)))
            await self.topology.heal()
            await self.topology.until_ready()
        return healed_s

    async def _open_wallets(self) -> list[str]:
        async with aiohttp.ClientSession() as session:
            api = Api(session, self.topology.url)
            # One by one: two at once are too much for a service without one of its protections.
            return [await api.wallet(_BALANCE) for _ in range(_WALLETS)]

    async def renew(self, without: Iterable[str] = ()) -> None:
        """An empty ledger, and a service without these layers of its protections."""
        await self.topology.renew(without)
        await self.listen()

    async def listen(self) -> None:
        """Have all events of transfers delivered here."""
        async with aiohttp.ClientSession() as session:
            reply = await Api(session, self.topology.url).post(
                "/webhooks",
                {"url": self._receiver.url, "events": ["transfer.posted", "transfer.reversed"]},
            )
            assert reply.status == 201, reply

    async def _until_delivered(self, before: Any, arrived: int, events_s: float) -> float:
        """Wait until all events of the round have come, or none does for so long.

        When the last of them had been published.
        """
        clock = asyncio.get_running_loop().time
        published_s = clock()
        deadline_s, last = published_s + events_s, (-1, -1)
        came: set[str] = set()
        looked_at = arrived
        # Not asked for again and again: the receiver lives in this process and needs the time.
        wanted = await self._posted(before)
        while clock() < deadline_s:
            received = self._receiver.received
            came.update(each.event_id for each in received[looked_at:])
            looked_at = len(received)
            waiting = await self.books.waiting_events()
            if waiting > 0:
                published_s = clock()
            elif wanted <= came:
                wanted = await self._posted(before)
                if wanted <= came:
                    break
            if (len(came), waiting) != last:
                deadline_s, last = clock() + events_s, (len(came), waiting)
            await asyncio.sleep(0.09)
        return published_s

    async def _posted(self, before: Any) -> set[str]:
        return {row.id for row in await self.books.transfers(before)}


@asynccontextmanager
async def stage(topology: ChaosTopology) -> AsyncIterator[Stage]:
    """Ready for rounds."""
    async with receiving() as receiver:
        stand = Stage(topology, receiver, Books(topology.postgres.url))
        await stand.listen()
        yield stand


def _after(seconds: float) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(seconds)
        return web.Response(status=204)

    return answer


def table(results: Sequence[Result]) -> list[str]:
    """A line for each fault."""
    lines = []
    for name in dict.fromkeys(result.fault for result in results):
        rounds = [result for result in results if result.fault == name]
        recoveries = [each.recovery_s for each in rounds if each.recovery_s is not None]
        share = sum(each.rate_during for each in rounds) / max(
            sum(each.rate_before for each in rounds), 0.001
        )
        lines.append(
            f"{name:<28}{len(rounds):>7}{sum(each.acknowledged for each in rounds):>9,}"
            f"{sum(each.unknown for each in rounds):>9,}"
            f"{sum(each.failed for each in rounds):>9,}{share:>9.2f}"
            f"{max(recoveries, default=float('nan')):>10.2f}"
            f"{max(each.published_s for each in rounds):>10.1f}"
            f"{max(each.drained_s for each in rounds):>10.1f}"
            f"{sum(len(each.violations) for each in rounds):>11}"
        )
    head = f"{'fault':<28}{'rounds':>7}{'201s':>9}{'unknown':>9}{'5xx':>9}{'during':>9}"
    return [f"{head}{'back in s':>10}{'published':>10}{'delivered':>10}{'violations':>11}", *lines]
