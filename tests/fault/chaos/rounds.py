"""A round: load, a fault during the load, and a check of the results at the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import aiohttp
from aiohttp import web

from loadtest.proof.check import check
from loadtest.proof.record import WalletRow
from loadtest.proof.violations import Violation
from tests.fault.chaos.client import READS, Client, is_open
from tests.fault.chaos.faults import FAULTS
from tests.fault.chaos.hold_requests import EXPIRES_IN_S_MAX, HOLDS
from tests.fault.chaos.ledger_reader import LedgerReader
from tests.fault.chaos.races import RACES
from tests.fault.chaos.topology import ChaosDeployment
from tests.support.api import Api
from tests.support.receivers import Answer, Receiver, receiving
from transferd.devstack import StackError

_WALLETS = 20
_BALANCE = 10_000
_CACHE_FAILURES = "transferd_cache_failures_total"
# A fault begins after this many acknowledged transfers, so that there are some to lose, and after
# this many reads of the past, which are repeated at the end.
_ACKNOWLEDGED_MIN = 50
_PAST_MIN = 5
_EVENTS = ["transfer.posted", "transfer.reversed", "hold.*"]
# An expiry is written within this time after the service serves again.
_EXPIRY_S = 5.0


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
    """The figures and the violations of a round. Rates are 201s per second."""

    fault: str
    seed: int
    what: str = ""
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


# Runs the load of a round; returns the time, by the clock of the loop, when the fault was over.
Act = Callable[[Client, Result], Awaitable[float]]


class ChaosRunner:
    """Runs rounds on a deployment, with a receiver of all its events."""

    def __init__(self, deployment: ChaosDeployment, receiver: Receiver) -> None:
        self.deployment = deployment
        self.ledger_reader = LedgerReader(deployment.postgres.url)
        self._receiver = receiver
        self._count = 0
        self._clock = asyncio.get_running_loop().time

    async def run_fault(self, fault: str, seed: int, *, options: RoundOptions = _DEFAULT) -> Result:
        """Run one round with this fault."""
        # Separate generators, because client and fault draw from them in an order that varies.
        random = Random(seed)
        hold_s = min(random.uniform(*FAULTS[fault].hold_s), options.hold_s_max)
        at_s = options.quiet_s * random.uniform(0.7, 1.3)
        choices = Random(random.getrandbits(32))

        async def act(client: Client, result: Result) -> float:
            self._receiver.answer = _after(options.receiver_s) if options.receiver_s else None
            client.start()
            began_s = self._clock()
            await asyncio.sleep(at_s)
            await client.until_count(_ACKNOWLEDGED_MIN, _PAST_MIN, options.recovery_s)
            injected_s = self._clock()
            result.rate_before = client.rate(began_s + 0.3, injected_s)
            async with FAULTS[fault].inject(self.deployment, choices) as result.what:
                await asyncio.sleep(hold_s)
            healed_s = self._clock()
            self._receiver.answer = None
            result.rate_during = client.rate(injected_s, healed_s)
            await self._recover(client, result, healed_s, options)
            return healed_s

        # After a fault of the worker or the broker events may be delivered again, and later events
        # may overtake retries.
        ordered = not any(part in fault for part in ("worker", "rabbitmq", "two"))
        return await self._round(fault, seed, act, options, ordered=ordered)

    async def run_race(
        self, name: str, seed: int, *, size: float = 1.0, options: RoundOptions = _DEFAULT
    ) -> Result:
        """Run one race, or a part of it: `size` 0.1 is a tenth."""

        async def act(client: Client, result: Result) -> float:
            began_s = self._clock()
            result.violations += await RACES[name](client, client.wallets, size)
            ended_s = self._clock()
            tries = sum(len(each.tries) for each in client.history)
            result.what = f"{tries:,} requests in {ended_s - began_s:.1f} s"
            result.rate_before = result.rate_during = client.rate(began_s, ended_s)
            return ended_s

        # No check of the order of events: under so many events the receiver may not answer in time,
        # and later events may overtake retries.
        return await self._round(name, seed, act, options, ordered=False)

    async def _round(
        self, name: str, seed: int, act: Act, options: RoundOptions, *, ordered: bool
    ) -> Result:
        result = Result(name, seed)
        # The number gives a repeated round on the same ledger keys of its own.
        self._count += 1
        run = f"chaos-{name}-{seed}-{self._count}"
        async with self._api() as api:
            # One after the other, because a protection against concurrent requests may be removed.
            wallets = [await api.wallet(_BALANCE) for _ in range(_WALLETS)]
        before = await self.ledger_reader.wallets()
        arrived = len(self._receiver.received)
        failures = await self.deployment.counted(_CACHE_FAILURES)
        client = Client(
            self.deployment.url,
            run,
            wallets,
            Random(seed),
            reads=options.reads,
            holds=options.holds,
            pause_s=options.pause_s,
            expires_in_s_max=options.expires_in_s_max,
        )
        try:
            healed_s = await act(client, result)
            await client.settle(options.settle_s)
            await self._until_expired(result)
            await client.repeat_past_reads()
        finally:
            await client.close()
        tries = [[one.status for one in each.tries] for each in client.history]
        result.operations = len(tries)
        result.acknowledged = len(client.acknowledged)
        result.past = client.answered_past
        result.unknown = sum(0 in statuses for statuses in tries)
        result.failed = sum(max(statuses) >= 500 for statuses in tries)
        result.published_s = await self._until_delivered(before, arrived, options) - healed_s
        result.drained_s = self._clock() - healed_s
        ledger = await self.ledger_reader.ledger(run, before, self._receiver.received[arrived:])
        result.events = len(ledger.deliveries)
        result.violations += check(
            client.history,
            ledger,
            # If Redis was slow but no call failed, no read may be older than an earlier answer.
            strict_reads=name.startswith("slow-")
            and await self.deployment.counted(_CACHE_FAILURES) == failures,
            events=True,
            ordered_events=ordered,
        )
        result.violations += [
            Violation("unsettled", f"the outcome of {each.key} is still unknown")
            for each in client.history
            if is_open(each)
        ]
        return result

    async def _recover(
        self, client: Client, result: Result, healed_s: float, options: RoundOptions
    ) -> None:
        """Wait until the service serves again, and for some load after that."""
        result.recovery_s = await client.until_acknowledged(healed_s, options.recovery_s)
        if result.recovery_s is None:
            text = f"no transfer within {options.recovery_s:g} s of the end of the fault"
            result.violations.append(Violation("not-recovered", text))
        elif result.recovery_s > options.serving_s:
            text = f"the first transfer came {result.recovery_s:.1f} s after the end of the fault"
            result.violations.append(Violation("slow-recovery", text))
        await asyncio.sleep(options.quiet_s * 0.5)
        await client.stop()
        try:
            await self.deployment.until_ready(options.recovery_s)
        except StackError as error:
            result.violations.append(Violation("not-recovered", str(error)))
            await self.deployment.heal()
            await self.deployment.until_ready()

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[Api]:
        async with aiohttp.ClientSession() as session:
            yield Api(session, self.deployment.url)

    async def recreate(self, without: Iterable[str] = ()) -> None:
        """Start with an empty ledger, and remove these layers from the service."""
        await self.deployment.recreate(without)
        await self.listen()

    async def listen(self) -> None:
        """Register a webhook for all events of transfers and holds."""
        body = {"url": self._receiver.url, "events": _EVENTS}
        async with self._api() as api:
            reply = await api.post("/webhooks", body)
            assert reply.status == 201, reply

    async def _until_expired(self, result: Result) -> None:
        """Wait until the expiry of each hold that is due soon is written."""
        while True:
            soon, late = await self.ledger_reader.due_holds(_EXPIRY_S)
            if late:
                text = f"{late} holds are active {_EXPIRY_S:g} s after their expiry"
                result.violations.append(Violation("late-expiry", text))
            if late or not soon:
                return
            await asyncio.sleep(0.09)

    async def _until_delivered(
        self, before: Mapping[str, WalletRow], arrived: int, options: RoundOptions
    ) -> float:
        """Wait until all events of the round have arrived, or none has arrived for `events_s`.

        Returns the time when the last event was published.
        """
        published_s = self._clock()
        deadline_s, last = published_s + options.events_s, (-1, -1)
        came: set[str] = set()
        # Not read in each iteration: the receiver runs in this process and needs CPU time.
        wanted = await self.ledger_reader.events(before)
        while self._clock() < deadline_s:
            received = self._receiver.received
            came.update(each.event_id for each in received[arrived:])
            arrived = len(received)
            waiting = await self.ledger_reader.waiting_events()
            if waiting > 0:
                published_s = self._clock()
            elif wanted <= came:
                wanted = await self.ledger_reader.events(before)
                if wanted <= came:
                    break
            if (len(came), waiting) != last:
                deadline_s, last = self._clock() + options.events_s, (len(came), waiting)
            await asyncio.sleep(0.09)
        return published_s


@asynccontextmanager
async def chaos_runner(deployment: ChaosDeployment) -> AsyncIterator[ChaosRunner]:
    """A receiver and its webhook on the deployment, ready for rounds."""
    async with receiving() as receiver:
        runner = ChaosRunner(deployment, receiver)
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
