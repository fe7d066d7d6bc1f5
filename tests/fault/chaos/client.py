"""The load of chaos: payments, holds, batches, freezes, reads and repetitions, with all answers."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from random import Random

import aiohttp
import orjson

from loadtest.proof.answers import JsonObject, code_of, is_final
from loadtest.proof.record import Kind, Operation, Try
from tests.fault.chaos.batch_requests import BATCHES, any_batch
from tests.fault.chaos.hold_requests import (
    EXPIRES_IN_S_MAX,
    HOLDS,
    HoldRequests,
    now_us,
)
from tests.fault.chaos.sending import reply_to
from tests.support.api import Api

# Workers of all clients together. Each sends its next request after the answer to the previous one.
WORKERS = 16
# Below the 15 s of the contract, so that more requests end without an answer.
_TIMEOUT_S = 8.0
_TRIES = 4
# The default share of reads.
READS = 0.15
_REPETITIONS = 0.10
_REVERSALS = 0.08
# The share of reads of the past: half of an instant, half of a window.
_PAST = 0.08
_SMALL = (1, 50)
_TOO_MUCH = 10**9
_RECENT = 200
_PAST_REPEATED = 40
# How long a wallet is frozen, and the pause before the next one.
_FROZEN_S = (0.02, 0.3)


def is_open(operation: Operation) -> bool:
    """Whether its outcome is unknown: it may have been executed, and has no final answer."""
    if not operation.has_outcome:
        return False
    last = max(operation.tries, key=lambda one: one.ended_s)
    # After a 429 and after a 503 nothing was executed. The client repeats only after a 503.
    return not is_final(last.status, last.code) and any(
        one.status != 429 for one in operation.tries
    )


class Client:
    """A client with several workers.

    `history` is all operations with their answers, `acknowledged` the transfers in answers that are
    not replays. `reads` and `holds` are shares of the requests, and `pause_s` is the mean pause of
    each of the `workers` between requests. The short expiries of holds are up to
    `expires_in_s_max`.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        run: str,
        wallets: Sequence[str],
        random: Random,
        *,
        reads: float = READS,
        holds: float = HOLDS,
        workers: int = WORKERS,
        pause_s: float = 0.0,
        expires_in_s_max: float = EXPIRES_IN_S_MAX,
    ) -> None:
        self.history: list[Operation] = []
        self.acknowledged: list[Try] = []
        self.wallets = wallets
        self._run = run
        self.random = random
        self._reads = reads
        self._holds = holds
        self.holds = HoldRequests(random, self._key, expires_in_s_max)
        self._workers = workers
        self._pause_s = pause_s
        self._versions: dict[str, int] = {}
        # The end of the latest window of each wallet, at which the next one begins. The first
        # window begins when the client is created.
        self._began_us = now_us()
        self._window_ends: dict[str, int] = {}
        self._posted: list[tuple[Operation, str]] = []
        self._keys = count()
        # Transfers for which a reversal was requested.
        self._reversed: list[tuple[Operation, str]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._clock = asyncio.get_running_loop().time
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        )
        self._api = Api(self._session, url)
        self._api.headers = dict(headers)

    def start(self) -> None:
        """Start the workers."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        self._tasks.append(asyncio.create_task(self._freeze()))

    async def stop(self) -> None:
        """Wait until each worker has finished its last operation."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def settle(self, within_s: float) -> None:
        """Repeat open operations with their keys until their outcomes are known."""
        deadline_s = self._clock() + within_s
        while self._clock() < deadline_s:
            waiting = [each for each in self.history if is_open(each)]
            if not waiting:
                return
            for operation in waiting:
                await self._try(operation)
            await asyncio.sleep(0.05)

    def transfer(self, source: str, destination: str, amount: int) -> Operation:
        """A transfer with a new key, not sent yet."""
        return Operation(Kind.TRANSFER, self._key(), source, destination, amount)

    def reversal(self, paid: Operation, transfer: str, amount: int) -> Operation:
        """A reversal of the transfer of that operation, with a new key, not sent yet."""
        return Operation(
            Kind.REVERSAL, self._key(), paid.destination, paid.source, amount, original=transfer
        )

    async def send(self, operation: Operation, copies: int = 1) -> None:
        """Send a new operation this many times at once; repeat each until it has a final answer."""
        self.history.append(operation)
        await asyncio.gather(*(self._until_final(operation) for _ in range(copies)))

    async def repeat_past_reads(self) -> None:
        """Repeat some of the reads of the past."""
        reads = [each for each in self.history if each.is_past]
        for operation in self.random.sample(reads, min(len(reads), _PAST_REPEATED)):
            await self._try(operation)

    async def _until_final(self, operation: Operation) -> None:
        for attempt in range(_TRIES):
            one = await self._try(operation)
            if is_final(one.status, one.code):
                return
            await asyncio.sleep(0.05 * 2**attempt)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def until_acknowledged(self, since_s: float, within_s: float) -> float | None:
        """Wait for a 201 to a request that was sent after `since_s`.

        Returns the seconds from `since_s` to the answer; None after `within_s`.
        """
        while self._clock() < since_s + within_s:
            for one in reversed(self.acknowledged):
                if one.ended_s < since_s:
                    break
                if one.began_s >= since_s:
                    return one.ended_s - since_s
            await asyncio.sleep(0.02)
        return None

    async def until_count(self, acknowledged: int, past: int, within_s: float) -> None:
        """Wait for this many acknowledged transfers and answered reads of the past.

        Returns after `within_s` at the latest.
        """
        until_s = self._clock() + within_s
        while self._clock() < until_s:
            if len(self.acknowledged) >= acknowledged and self.answered_past >= past:
                return
            await asyncio.sleep(0.02)

    @property
    def answered_past(self) -> int:
        """The reads of the past that were answered at once."""
        return sum(
            each.is_past and bool(each.tries) and each.tries[0].status == 200
            for each in self.history
        )

    def rate(self, from_s: float, to_s: float) -> float:
        """Acknowledged transfers per second between two times."""
        count = sum(from_s <= one.ended_s < to_s for one in self.acknowledged)
        return count / max(to_s - from_s, 0.001)

    async def _work(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._pause_s * self.random.uniform(0.5, 1.5))
            chance = self.random.random() - _REPETITIONS
            if chance < 0 and self.history:
                # Repeat a recent request, with or without an answer.
                await self._try(self.random.choice(self.history[-_RECENT:]))
                continue
            if chance < self._reads:
                operation = self._a_read()
            elif chance < self._reads + _PAST:
                operation = self._a_past_read()
            elif chance < self._reads + _PAST + _REVERSALS and self._posted:
                operation = self._a_reversal()
            elif chance < self._reads + _PAST + _REVERSALS + self._holds:
                operation = self.holds.any(*self._two_wallets())
            elif chance < self._reads + _PAST + _REVERSALS + self._holds + BATCHES:
                operation = any_batch(self.random, self._key, self.wallets, self.holds)
            else:
                operation = self._a_transfer()
            self.history.append(operation)
            await self._until_known(operation)

    async def _freeze(self) -> None:
        """Freeze one wallet at a time for a moment, often one with holds."""
        while not self._is_over:
            await asyncio.sleep(self.random.uniform(*_FROZEN_S))
            wallet = self.holds.recent_payer() or self.random.choice(self.wallets)
            for kind in (Kind.FREEZE, Kind.UNFREEZE):
                # The next request needs the outcome of this one.
                if not await self._until_settled(Operation(kind, self._key(), wallet=wallet)):
                    return
                await asyncio.sleep(self.random.uniform(*_FROZEN_S))

    async def _until_settled(self, operation: Operation) -> bool:
        """Repeat it until it has a final answer; returns False if the load is over before."""
        self.history.append(operation)
        while True:
            one = await self._try(operation)
            if is_final(one.status, one.code):
                return True
            if self._is_over:
                return False
            await asyncio.sleep(0.05)

    async def _until_known(self, operation: Operation) -> None:
        # Some requests are sent twice at once.
        copies = 2 if operation.key and self.random.random() < 0.05 else 1
        await asyncio.gather(*(self._try(operation) for _ in range(copies)))
        for attempt in range(1, _TRIES):
            if not is_open(operation) or self._is_over:
                break
            await asyncio.sleep(0.05 * 2**attempt)
            await self._try(operation)
        if operation.tries[-1].status in (0, 429, 503):
            await asyncio.sleep(0.05)

    def _two_wallets(self) -> tuple[str, str]:
        """Often with the hot wallet."""
        source, destination = self.random.sample(self.wallets, 2)
        chance = self.random.random()
        hot = self.wallets[0]
        if chance < 0.4 and source != hot:
            destination = hot
        elif chance < 0.6 and destination != hot:
            source = hot
        return source, destination

    def _a_transfer(self) -> Operation:
        source, destination = self._two_wallets()
        is_small = self.random.random() < 0.95
        amount = self.random.randint(*_SMALL) if is_small else _TOO_MUCH
        return self.transfer(source, destination, amount)

    def _a_reversal(self) -> Operation:
        # Half are further reversals of the same transfers, so their sum may exceed the amount.
        if self._reversed and self.random.random() < 0.5:
            paid, transfer = self.random.choice(self._reversed[-_RECENT:])
        else:
            paid, transfer = self.random.choice(self._posted[-_RECENT:])
            self._reversed.append((paid, transfer))
        return self.reversal(paid, transfer, self.random.randint(1, paid.amount))

    def _wallet(self, hot: float) -> str:
        """The hot wallet with this probability, otherwise a random wallet."""
        is_hot = self.random.random() < hot
        return self.wallets[0] if is_hot else self.random.choice(self.wallets)

    def _a_read(self) -> Operation:
        wallet = self._wallet(hot=0.4)
        known = self._versions.get(wallet)
        min_version = known if self.random.random() < 0.7 else None
        return Operation(Kind.READ, wallet=wallet, min_version=min_version)

    def _a_past_read(self) -> Operation:
        """A read of the time until now, so that the service must wait for uncommitted changes."""
        wallet = self._wallet(hot=0.6)
        until_us = now_us()
        if self.random.random() < 0.5:
            # Now, or the end of a window of this wallet, so that both answers can be compared.
            if self.random.random() < 0.5:
                until_us = self._window_ends.get(wallet, until_us)
            return Operation(Kind.INSTANT, wallet=wallet, until_us=until_us)
        since_us = self._window_ends.get(wallet, self._began_us)
        self._window_ends[wallet] = until_us
        return Operation(Kind.WINDOW, wallet=wallet, since_us=since_us, until_us=until_us)

    def _key(self) -> str:
        # Numbers only, so that the clients of all ledgers have the same keys.
        return f"{self._run}-{next(self._keys)}"

    async def _try(self, operation: Operation) -> Try:
        began_s, began_us = self._clock(), now_us()
        try:
            reply = await reply_to(self._api, operation)
        except (aiohttp.ClientError, TimeoutError, OSError):
            one = Try(began_s, self._clock(), 0, began_us=began_us)
        else:
            code = code_of(reply.body) if reply.status >= 400 else ""
            replayed = "Idempotent-Replayed" in reply.headers
            one = Try(began_s, self._clock(), reply.status, code, reply.body, replayed, began_us)
        operation.tries.append(one)
        if one.status in (200, 201) and not operation.is_past:
            self._record(operation, one)
        return one

    def _record(self, operation: Operation, one: Try) -> None:
        answer = orjson.loads(one.body)
        if operation.kind is Kind.READ or operation.sets_status:
            self._record_version(operation.wallet, answer["version"])
            return
        if operation.kind is Kind.BATCH:
            for item, result in zip(operation.items, answer["results"], strict=True):
                if "code" not in result:
                    self._record_transfer(item, result, one)
            return
        if operation.kind is Kind.HOLD:
            self.holds.created(operation, answer["id"])
        if operation.moves_money:
            self._record_transfer(operation, answer, one)

    def _record_transfer(self, operation: Operation, answer: JsonObject, one: Try) -> None:
        """`operation` is the request of the transfer, or the item of its batch."""
        self._record_version(operation.source, answer["source_version"])
        if not one.replayed:
            self.acknowledged.append(one)
        # A capture without an amount has none that a reversal could ask for.
        if operation.kind is not Kind.REVERSAL and operation.amount:
            self._posted.append((operation, answer["id"]))

    def _record_version(self, wallet: str, version: int) -> None:
        self._versions[wallet] = max(version, self._versions.get(wallet, -1))
