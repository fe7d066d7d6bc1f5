"""A client that pays, reverses, reads, looks back and repeats, and writes everything down."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from random import Random

import aiohttp
import orjson

from loadtest.proof.answers import code_of, is_final
from loadtest.proof.record import Kind, Operation, Try

# As many at a time; each waits for its answer before the next.
_WORKERS = 16
# Less than the contract's 15 s: who hangs up early leaves more to be settled.
_TIMEOUT_S = 8.0
_TRIES = 4
# So much of what it does is a read, unless it is told otherwise.
READS = 0.15
_REVERSALS = 0.08
# So much is a question about the past: half of them an instant, half of them a window.
_PAST = 0.08
_SMALL = (1, 50)
_TOO_MUCH = 10**9
_RECENT = 200
_LOOKED_BACK = 40


def now_us() -> int:
    """Microseconds since 1970, by the clock that the database has as well."""
    return time.time_ns() // 1_000


def _text_of(instant_us: int) -> str:
    seconds, rest_us = divmod(instant_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_us:06}Z"


def is_open(operation: Operation) -> bool:
    """Whether it may have happened, and the last to be asked did not say so."""
    if not operation.moves_money:
        return False
    last = max(operation.tries, key=lambda one: one.ended_s)
    # After a 429 nothing has happened. A 503 says so too, but who wants the transfer asks again.
    return not is_final(last.status, last.code) and any(
        one.status != 429 for one in operation.tries
    )


class Client:
    """`history` is what was asked and answered; `acknowledged_s` are the times of each 201.

    `reads` is the share of reads among what it asks for, and `pause_s` how long each of its workers
    rests after an answer, on average.
    """

    def __init__(
        self,
        url: str,
        run: str,
        wallets: Sequence[str],
        random: Random,
        *,
        reads: float = READS,
        pause_s: float = 0.0,
    ) -> None:
        self.history: list[Operation] = []
        self.acknowledged_s: list[float] = []
        # When a try began that was acknowledged later.
        self.began_s: list[float] = []
        self._url = url
        self._run = run
        self.wallets = wallets
        self._random = random
        self._reads = reads
        self._pause_s = pause_s
        self._versions: dict[str, int] = {}
        # Where the next window of each wallet begins. It has ended everywhere before this client.
        self._began_us = now_us()
        self._window_ends: dict[str, int] = {}
        self._posted: list[tuple[Operation, str]] = []
        self._asked: set[str] = set()
        self._made = count()
        # Of these somebody has asked something back.
        self._reversed: list[tuple[Operation, str]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._clock = asyncio.get_running_loop().time
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        )

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(_WORKERS)]

    async def stop(self) -> None:
        """Wait until each worker has ended its last operation."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def settle(self, within_s: float) -> None:
        """Repeat what is open with its key until that tells what became of it."""
        deadline_s = self._clock() + within_s
        while self._clock() < deadline_s:
            waiting = [each for each in self.history if is_open(each)]
            if not waiting:
                return
            for operation in waiting:
                await self._try(operation)
            await asyncio.sleep(0.05)

    def transfer(self, source: str, destination: str, amount: int) -> Operation:
        """One with a key of its own, that was not sent yet."""
        return Operation(Kind.TRANSFER, self._key(), source, destination, amount)

    def reversal(self, paid: Operation, transfer: str, amount: int) -> Operation:
        """One of that operation's transfer, with a key of its own, that was not sent yet."""
        return Operation(
            Kind.REVERSAL, self._key(), paid.destination, paid.source, amount, original=transfer
        )

    async def ask(self, operation: Operation, copies: int = 1) -> None:
        """Send it so many times at once; what is turned away or not answered is sent again."""
        if operation.key not in self._asked:
            self._asked.add(operation.key)
            self.history.append(operation)
        await asyncio.gather(*(self._until_final(operation) for _ in range(copies)))

    async def look_back(self) -> None:
        """Ask some of its questions about the past once more."""
        asked = [each for each in self.history if each.kind in {Kind.INSTANT, Kind.WINDOW}]
        for operation in self._random.sample(asked, min(len(asked), _LOOKED_BACK)):
            await self._try(operation)

    async def _until_final(self, operation: Operation) -> None:
        for attempt in range(_TRIES):
            one = await self._try(operation)
            if is_final(one.status, one.code):
                return
            await asyncio.sleep(0.05 * 2**attempt)

    async def close(self) -> None:
        """Let the connections go."""
        await self._session.close()

    async def until_acknowledged(self, since_s: float, within_s: float) -> float | None:
        """Wait for a 201 to a request that was sent after `since_s`; seconds until its answer."""
        while self._clock() < since_s + within_s:
            for began_s, ended_s in zip(
                reversed(self.began_s), reversed(self.acknowledged_s), strict=True
            ):
                if ended_s < since_s:
                    break
                if began_s >= since_s:
                    return ended_s - since_s
            await asyncio.sleep(0.02)
        return None

    async def until_so_many(self, count: int, within_s: float) -> None:
        """Wait until so many transfers were acknowledged, or for so long."""
        until_s = self._clock() + within_s
        while len(self.acknowledged_s) < count and self._clock() < until_s:
            await asyncio.sleep(0.02)

    def rate(self, from_s: float, to_s: float) -> float:
        """Acknowledged transfers per second in between."""
        count = sum(from_s <= at_s < to_s for at_s in self.acknowledged_s)
        return count / max(to_s - from_s, 0.001)

    async def _work(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._pause_s * self._random.uniform(0.5, 1.5))
            chance = self._random.random() - 0.10
            if chance < 0 and self.history:
                # Somebody repeats what is long answered, or what nobody knows yet.
                await self._try(self._random.choice(self.history[-_RECENT:]))
                continue
            if chance < self._reads:
                operation = self._a_read()
            elif chance < self._reads + _PAST:
                operation = self._a_look_back()
            elif chance < self._reads + _PAST + _REVERSALS and self._posted:
                operation = self._a_reversal()
            else:
                operation = self._a_transfer()
            self.history.append(operation)
            await self._until_known(operation)

    async def _until_known(self, operation: Operation) -> None:
        # Some send everything twice at once.
        copies = 2 if operation.key and self._random.random() < 0.05 else 1
        await asyncio.gather(*(self._try(operation) for _ in range(copies)))
        for attempt in range(1, _TRIES):
            if not is_open(operation) or self._is_over:
                break
            await asyncio.sleep(0.05 * 2**attempt)
            await self._try(operation)
        if operation.tries[-1].status in (0, 429, 503):
            await asyncio.sleep(0.05)

    def _a_transfer(self) -> Operation:
        source, destination = self._random.sample(self.wallets, 2)
        chance = self._random.random()
        hot = self.wallets[0]
        if chance < 0.4 and source != hot:
            destination = hot
        elif chance < 0.6 and destination != hot:
            source = hot
        is_small = self._random.random() < 0.95
        amount = self._random.randint(*_SMALL) if is_small else _TOO_MUCH
        return self.transfer(source, destination, amount)

    def _a_reversal(self) -> Operation:
        # Half of them want more of what was asked back before: there it may be too much.
        if self._reversed and self._random.random() < 0.5:
            paid, transfer = self._random.choice(self._reversed[-_RECENT:])
        else:
            paid, transfer = self._random.choice(self._posted[-_RECENT:])
            self._reversed.append((paid, transfer))
        return self.reversal(paid, transfer, self._random.randint(1, paid.amount))

    def _a_read(self) -> Operation:
        is_hot = self._random.random() < 0.4
        wallet = self.wallets[0] if is_hot else self._random.choice(self.wallets)
        known = self._versions.get(wallet)
        min_version = known if self._random.random() < 0.7 else None
        return Operation(Kind.READ, wallet=wallet, min_version=min_version)

    def _a_look_back(self) -> Operation:
        """Before now: the service has to wait for what is being written, and must not miss it."""
        is_hot = self._random.random() < 0.6
        wallet = self.wallets[0] if is_hot else self._random.choice(self.wallets)
        until_us = now_us()
        if self._random.random() < 0.5:
            # Now, or where a window of this wallet ended: then their sums can be compared.
            if self._random.random() < 0.5:
                until_us = self._window_ends.get(wallet, until_us)
            return Operation(Kind.INSTANT, wallet=wallet, until_us=until_us)
        since_us = self._window_ends.get(wallet, self._began_us)
        self._window_ends[wallet] = until_us
        return Operation(Kind.WINDOW, wallet=wallet, since_us=since_us, until_us=until_us)

    def _key(self) -> str:
        return f"{self._run}-{next(self._made)}-{self._random.getrandbits(32):x}"

    async def _try(self, operation: Operation) -> Try:
        began_s = self._clock()
        try:
            if operation.kind is Kind.WINDOW:
                status, replayed, body = await self._pages(operation)
            else:
                async with self._request(operation) as response:
                    body = await response.read()
                    status, replayed = response.status, "Idempotent-Replayed" in response.headers
        except (aiohttp.ClientError, TimeoutError, OSError):
            one = Try(began_s, self._clock(), 0)
            operation.tries.append(one)
            return one
        code = code_of(body) if status >= 400 else ""
        one = Try(began_s, self._clock(), status, code, body, replayed)
        operation.tries.append(one)
        if status in (200, 201) and operation.kind not in {Kind.INSTANT, Kind.WINDOW}:
            self._learn(operation, one)
        return one

    async def _pages(self, operation: Operation) -> tuple[int, bool, bytes]:
        """A window as one answer: all pages, or the first that is none."""
        query = f"limit=200&from={_text_of(operation.since_us)}&to={_text_of(operation.until_us)}"
        data: list[object] = []
        cursor = ""
        while True:
            url = f"{self._url}/wallets/{operation.wallet}/statement?{query}{cursor}"
            async with self._session.get(url) as response:
                body = await response.read()
                if response.status != 200:
                    return response.status, False, body
            page = orjson.loads(body)
            data += page["data"]
            if not page["has_more"]:
                return 200, False, orjson.dumps({"data": data})
            cursor = f"&cursor={page['next_cursor']}"

    def _request(self, operation: Operation) -> "aiohttp.client._RequestContextManager":
        if operation.kind is Kind.READ:
            known = operation.min_version
            query = "" if known is None else f"?min_version={known}"
            return self._session.get(f"{self._url}/wallets/{operation.wallet}{query}")
        if operation.kind is Kind.INSTANT:
            query = f"?at={_text_of(operation.until_us)}"
            return self._session.get(f"{self._url}/wallets/{operation.wallet}{query}")
        headers = {"Idempotency-Key": operation.key}
        if operation.kind is Kind.REVERSAL:
            url = f"{self._url}/transfers/{operation.original}/reversal"
            return self._session.post(url, json={"amount": operation.amount}, headers=headers)
        body = {
            "source_wallet_id": operation.source,
            "destination_wallet_id": operation.destination,
            "amount": operation.amount,
            "currency": "USD",
        }
        return self._session.post(f"{self._url}/transfers", json=body, headers=headers)

    def _learn(self, operation: Operation, one: Try) -> None:
        answer = orjson.loads(one.body)
        if operation.kind is Kind.READ:
            self._know(operation.wallet, answer["version"])
            return
        self._know(operation.source, answer["source_version"])
        if not one.replayed:
            self.acknowledged_s.append(one.ended_s)
            self.began_s.append(one.began_s)
        if operation.kind is Kind.TRANSFER:
            self._posted.append((operation, answer["id"]))

    def _know(self, wallet: str, version: int) -> None:
        self._versions[wallet] = max(version, self._versions.get(wallet, -1))
