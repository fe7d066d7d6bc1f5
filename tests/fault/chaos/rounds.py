"""A round: load, a fault during the load, and a check of the results at the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from aiohttp import web

from loadtest.proof.check import check
from loadtest.proof.record import WalletRow
from loadtest.proof.violations import Violation
from tests.fault.chaos.client import READS, WORKERS, Client, is_open
from tests.fault.chaos.faults import FAULTS
from tests.fault.chaos.hold_requests import EXPIRES_IN_S_MAX, HOLDS
from tests.fault.chaos.ledgers import ChaosLedger, named
from tests.fault.chaos.races import RACES
from tests.fault.chaos.topology import ChaosDeployment
from tests.support.receivers import Answer, Receiver, receiving
from transferd.devstack import StackError

_WALLETS = 20
_BALANCE = 10_000
_CACHE_FAILURES = "transferd_cache_failures_total"
# A fault begins after this many acknowledged transfers, so that there are some to lose, and after
# this many reads of the past, which are repeated at the end.
_ACKNOWLEDGED_MIN = 50
_PAST_MIN = 5
# Each ledger has at least so many workers, for which the wallets of the ledger are few.
_WORKERS_MIN = 4


@dataclass(frozen=True)
class RoundOptions:
    """The load and the timeouts of a round.

    Load runs for about `quiet_s` before the fault and half as long after it. The fault lasts at
    most `hold_s_max`. After it the service must serve again within `serving_s`; the round waits up
    to `recovery_s`, to measure the time. `settle_s` is the timeout for unknown outcomes. The wait
    for events ends when none arrives for `events_s`. `reads` and `holds` are shares of the load,
    `pause_s` is the mean pause of a worker, and `receiver_s` the time that the receiver takes for
    an event until the fault is over. Short expiries of holds are up to `expires_in_s_max`.
    """

    quiet_s: float = 1.5
    hold_s_max: float = 60.0
    serving_s: float = 5.0
    recovery_s: float = 30.0
    settle_s: float = 60.0
    events_s: float = 60.0
    reads: float = READS
    holds: float = HOLDS
    pause_s: float = 0.0
    receiver_s: float = 0.0
    expires_in_s_max: float = EXPIRES_IN_S_MAX


_DEFAULT = RoundOptions()


@dataclass
class Result:
    """The figures of all ledgers and the violations of a round. Rates are 201s per second."""

    fault: str
    seed: int
    what: str = ""
    ledgers: int = 1
    operations: int = 0
    acknowledged: int = 0
    # Answered reads of the past.
    past: int = 0
    # Operations with a try without an answer, and operations with a try that got a 5xx.
    unknown: int = 0
    failed: int = 0
    rate_before: float = 0.0
    rate_during: float = 0.0
    # From the end of the fault to the first new 201; None if there was none.
    recovery_s: float | None = None
    # From the end of the fault until all events were published, and until they were delivered.
    published_s: float = 0.0
    drained_s: float = 0.0
    events: int = 0
    violations: list[Violation] = field(default_factory=list)


# Runs the load of a round with a client of each ledger; returns the time, by the clock of the loop,
# when the fault was over.
Act = Callable[[Sequence[Client], Result], Awaitable[float]]


@dataclass(frozen=True)
class Part:
    """A ledger in a round: its client, and what was there before."""

    ledger: ChaosLedger
    client: Client
    before: Mapping[str, WalletRow]
    # The number of events that had arrived.
    arrived: int


class ChaosRunner:
    """Runs rounds in all ledgers of a deployment, with a receiver for the events of each."""

    def __init__(self, deployment: ChaosDeployment, receivers: Sequence[Receiver]) -> None:
        self.deployment = deployment
        self.ledgers: list[ChaosLedger] = []
        self._receivers = receivers
        self._count = 0
        self._clock = asyncio.get_running_loop().time

    async def run_fault(self, fault: str, seed: int, *, options: RoundOptions = _DEFAULT) -> Result:
        """Run one round with this fault."""
        # Separate generators, because client and fault draw from them in an order that varies.
        random = Random(seed)
        hold_s = min(random.uniform(*FAULTS[fault].hold_s), options.hold_s_max)
        at_s = options.quiet_s * random.uniform(0.7, 1.3)
        choices = Random(random.getrandbits(32))

        async def act(clients: Sequence[Client], result: Result) -> float:
            for receiver in self._receivers:
                receiver.answer = _after(options.receiver_s) if options.receiver_s else None
            for client in clients:
                client.start()
            began_s = self._clock()
            await asyncio.sleep(at_s)
            counts = (_ACKNOWLEDGED_MIN, _PAST_MIN, options.recovery_s)
            await asyncio.gather(*(client.until_count(*counts) for client in clients))
            injected_s = self._clock()
            result.rate_before = sum(each.rate(began_s + 0.3, injected_s) for each in clients)
            async with FAULTS[fault].inject(self.deployment, choices) as result.what:
                await asyncio.sleep(hold_s)
            healed_s = self._clock()
            for receiver in self._receivers:
                receiver.answer = None
            result.rate_during = sum(client.rate(injected_s, healed_s) for client in clients)
            await self._recover(clients, result, healed_s, options)
            return healed_s

        # After a fault of the worker or the broker events may be delivered again, and later events
        # may overtake retries.
        ordered = not any(part in fault for part in ("worker", "rabbitmq", "two"))
        return await self._round(fault, seed, act, options, ordered=ordered)

    async def run_race(
        self, name: str, seed: int, *, size: float = 1.0, options: RoundOptions = _DEFAULT
    ) -> Result:
        """Run one race in each ledger, or a part of it: `size` 0.1 is a tenth."""

        async def act(clients: Sequence[Client], result: Result) -> float:
            began_s = self._clock()
            races = (RACES[name](client, client.wallets, size) for client in clients)
            for found in await asyncio.gather(*races):
                result.violations += found
            ended_s = self._clock()
            tries = sum(len(each.tries) for client in clients for each in client.history)
            result.what = f"{tries:,} requests in {ended_s - began_s:.1f} s"
            result.rate_before = sum(client.rate(began_s, ended_s) for client in clients)
            result.rate_during = result.rate_before
            return ended_s

        # No check of the order of events: under so many events the receiver may not answer in time,
        # and later events may overtake retries.
        return await self._round(name, seed, act, options, ordered=False)

    async def _round(
        self, name: str, seed: int, act: Act, options: RoundOptions, *, ordered: bool
    ) -> Result:
        result = Result(name, seed, ledgers=len(self.ledgers))
        # The number gives a repeated round on the same ledgers keys of its own.
        self._count += 1
        run = f"chaos-{name}-{seed}-{self._count}"
        parts = await asyncio.gather(
            *(self._part(each, run, seed, options) for each in self.ledgers)
        )
        clients = [part.client for part in parts]
        failures = await self.deployment.counted(_CACHE_FAILURES)
        try:
            healed_s = await act(clients, result)
            await asyncio.gather(*(client.settle(options.settle_s) for client in clients))
            late = await asyncio.gather(*(part.ledger.until_expired() for part in parts))
            await asyncio.gather(*(client.repeat_past_reads() for client in clients))
        finally:
            await asyncio.gather(*(client.close() for client in clients))
        _count(result, clients)
        published = (
            part.ledger.until_delivered(part.before, part.arrived, options.events_s)
            for part in parts
        )
        result.published_s = max(await asyncio.gather(*published)) - healed_s
        result.drained_s = self._clock() - healed_s
        # If Redis was slow but no call failed, no read may be older than an earlier answer.
        strict_reads = (
            name.startswith("slow-") and await self.deployment.counted(_CACHE_FAILURES) == failures
        )
        for part, expired_late in zip(parts, late, strict=True):
            found = await self._check(part, run, result, strict_reads, ordered=ordered)
            alone = len(parts) == 1
            result.violations += named(part.ledger, [*expired_late, *found], alone=alone)
        return result

    async def _part(self, ledger: ChaosLedger, run: str, seed: int, options: RoundOptions) -> Part:
        """New wallets in the ledger, and a client that has not started."""
        wallets = await ledger.new_wallets(_WALLETS, _BALANCE)
        before = await ledger.reader.wallets()
        client = Client(
            self.deployment.url,
            ledger.headers,
            run,
            wallets,
            Random(seed),
            reads=options.reads,
            holds=options.holds,
            workers=max(_WORKERS_MIN, WORKERS // len(self.ledgers)),
            pause_s=options.pause_s,
            expires_in_s_max=options.expires_in_s_max,
        )
        return Part(ledger, client, before, len(ledger.receiver.received))

    async def _check(
        self, part: Part, run: str, result: Result, strict_reads: bool, *, ordered: bool
    ) -> list[Violation]:
        """The violations in one ledger."""
        lists, found = await part.ledger.lists(part.client.wallets[0])
        received = part.ledger.receiver.received[part.arrived :]
        ledger = await part.ledger.reader.ledger(run, part.before, received, lists)
        result.events += len(ledger.deliveries)
        history = part.client.history
        found += check(
            history, ledger, strict_reads=strict_reads, events=True, ordered_events=ordered
        )
        return found + [
            Violation("unsettled", f"the outcome of {each.key} is still unknown")
            for each in history
            if is_open(each)
        ]

    async def _recover(
        self, clients: Sequence[Client], result: Result, healed_s: float, options: RoundOptions
    ) -> None:
        """Wait until the service serves every ledger again, and for some load after that."""
        times_s = await asyncio.gather(
            *(each.until_acknowledged(healed_s, options.recovery_s) for each in clients)
        )
        known_s = [each for each in times_s if each is not None]
        if len(known_s) < len(times_s):
            text = f"no transfer within {options.recovery_s:g} s of the end of the fault"
            if len(times_s) > 1:
                text += f" in {len(times_s) - len(known_s)} of {len(times_s)} ledgers"
            result.violations.append(Violation("not-recovered", text))
        else:
            result.recovery_s = max(known_s)
            if result.recovery_s > options.serving_s:
                text = f"the first transfer came {result.recovery_s:.1f} s after the end"
                result.violations.append(Violation("slow-recovery", f"{text} of the fault"))
        await asyncio.sleep(options.quiet_s * 0.5)
        await asyncio.gather(*(client.stop() for client in clients))
        try:
            await self.deployment.until_ready(options.recovery_s)
        except StackError as error:
            result.violations.append(Violation("not-recovered", str(error)))
            await self.deployment.heal()
            await self.deployment.until_ready()

    async def recreate(self, without: Iterable[str] = ()) -> None:
        """Start with empty ledgers, and remove these layers from the service."""
        await self.deployment.recreate(without)
        await self.listen()

    async def listen(self) -> None:
        """Register the webhook of each ledger."""
        deployment = self.deployment
        self.ledgers = [
            ChaosLedger(keyed, deployment.url, deployment.postgres.url, receiver)
            for keyed, receiver in zip(deployment.ledgers, self._receivers, strict=True)
        ]
        for each in self.ledgers:
            await each.listen()


def _count(result: Result, clients: Sequence[Client]) -> None:
    history = [each for client in clients for each in client.history]
    tries = [[one.status for one in each.tries] for each in history]
    result.operations = len(tries)
    result.acknowledged = sum(len(client.acknowledged) for client in clients)
    result.past = sum(client.answered_past for client in clients)
    result.unknown = sum(0 in statuses for statuses in tries)
    result.failed = sum(max(statuses) >= 500 for statuses in tries)


@asynccontextmanager
async def chaos_runner(deployment: ChaosDeployment) -> AsyncIterator[ChaosRunner]:
    """A receiver and its webhook for each ledger of the deployment, ready for rounds."""
    async with AsyncExitStack() as exits:
        receivers = [await exits.enter_async_context(receiving()) for _ in deployment.ledgers]
        runner = ChaosRunner(deployment, receivers)
        await runner.listen()
        yield runner


def _after(seconds: float) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(seconds)
        return web.Response(status=204)

    return answer


def table(results: Sequence[Result]) -> list[str]:
    """The results as a table, with a line for each fault."""
    head = f"{'fault':<28}{'rounds':>7}{'201s':>9}{'unknown':>9}{'5xx':>9}{'during':>9}"
    lines = [f"{head}{'back in s':>10}{'published':>10}{'delivered':>10}{'violations':>11}"]
    for name in dict.fromkeys(result.fault for result in results):
        rounds = [result for result in results if result.fault == name]
        recoveries = [each.recovery_s for each in rounds if each.recovery_s is not None]
        before = sum(each.rate_before for each in rounds)
        during = sum(each.rate_during for each in rounds) / max(before, 0.001)
        lines.append(
            f"{name:<28}{len(rounds):>7}{sum(each.acknowledged for each in rounds):>9,}"
            f"{sum(each.unknown for each in rounds):>9,}"
            f"{sum(each.failed for each in rounds):>9,}{during:>9.2f}"
            f"{max(recoveries, default=float('nan')):>10.2f}"
            f"{max(each.published_s for each in rounds):>10.1f}"
            f"{max(each.drained_s for each in rounds):>10.1f}"
            f"{sum(len(each.violations) for each in rounds):>11}"
        )
    return lines
