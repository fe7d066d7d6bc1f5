"""A reverse proxy that does one thing wrong now and then, for checks that have to find it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from io import BytesIO

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from tests.support.passing import WALLET_PATH, Answer, Ask, end_to_end
from tests.support.serving import serving
from transferd.ledger.ids import new_id
from transferd.web.rendering import rfc3339


class Fault(Enum):
    """What goes wrong; "a payment" is a POST /transfers that is no dry run."""

    LOST = "a payment is acknowledged with a made-up transfer and never reaches the service"
    DOUBLED = "an acknowledged payment is made once more under another key"
    DOUBLE_CREDIT = "an acknowledged payment is credited once more, in the database only"
    CHANGED_REPLAY = "a replayed answer differs from the first in one value"
    NEW_ON_REPLAY = "a repeated payment is executed anew, under another key"
    STALE_READ = "the first answer about each wallet is given for ever, whatever is asked of it"
    WRONG_AMOUNT = "a payment is acknowledged with another amount than was asked for"
    SLOW = "a payment is answered late"
    FAILING = "a payment is answered by 500 and never reaches the service"
    BUSY = "a payment is turned away by 429 `mailbox-full`: no fault but back-pressure"
    CRASHING_ON_NONSENSE = "a malformed request is answered by 500 instead of 400"


# Most faults hide among many good answers. What is rare in itself is spoiled each time, and a
# stale read is none unless it is the same for ever.
_EVERY = 50
_EVERY_OF = {
    Fault.CHANGED_REPLAY: 1,
    Fault.NEW_ON_REPLAY: 1,
    Fault.STALE_READ: 1,
    Fault.BUSY: 2,
    Fault.CRASHING_ON_NONSENSE: 1,
}
# What the client library would add of its own accord.
_UNASKED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# All that the body of a payment may say.
_MEMBERS = {
    *("source_wallet_id", "destination_wallet_id", "amount", "currency"),
    *("reference", "metadata"),
}

Damage = Callable[[str, int], Awaitable[None]]


@dataclass
class FaultyFront:
    """`url` is where clients come in; `planted` counts how often the fault was done."""

    target: str
    fault: Fault | None
    session: aiohttp.ClientSession
    every: int
    slow_s: float
    damage: Damage | None
    url: str = ""
    planted: int = 0
    # Payments that were sent and those that were acknowledged, by their key, and the first answer
    # about each wallet.
    sent: dict[str, bytes] = field(default_factory=dict)
    paid: dict[str, bytes] = field(default_factory=dict)
    first_reads: dict[str, Answer] = field(default_factory=dict)
    _fitting: int = 0

    def __repr__(self) -> str:
        name = "nothing" if self.fault is None else self.fault.name
        return f"<FaultyFront {name}, planted {self.planted} times>"

    async def answer(self, ask: Ask) -> Answer:
        """What the target answers, unless it is time for the fault."""
        fits, act = _INSTEAD.get(self.fault, _NEVER_INSTEAD)
        if fits(self, ask) and (answer := await self._planted(lambda: act(self, ask))):
            return answer
        answer = await self.forward(ask)
        fits_after, spoil = _AFTERWARDS.get(self.fault, _NEVER_AFTERWARDS)
        if fits_after(ask, answer):
            return await self._planted(lambda: spoil(self, ask, answer)) or answer
        return answer

    async def forward(self, ask: Ask) -> Answer:
        """What the target answers."""
        if ask.pays:
            self.sent.setdefault(ask.key, ask.body)
        async with self.session.request(
            ask.method,
            URL(self.target + ask.path, encoded=True),
            headers=ask.headers,
            # aiohttp warns of large bodies that come as bytes.
            data=BytesIO(ask.body) if ask.body else None,
            allow_redirects=False,
        ) as response:
            body = await response.read()
            answer = Answer(response.status, end_to_end(response.headers), body)
        if ask.method != "HEAD":
            answer.headers.popall("Content-Length", None)
        if ask.pays and answer.status == 201:
            self.paid[ask.key] = ask.body
        if (wallet := ask.wallet_read) and answer.status == 200:
            self.first_reads.setdefault(wallet, answer)
        return answer

    async def handle(self, request: web.Request) -> web.Response:
        """Serve one request."""
        headers = end_to_end(request.headers)
        headers.popall("Content-Length", None)
        ask = Ask(request.method, request.raw_path, headers, await request.read())
        try:
            answer = await self.answer(ask)
        except aiohttp.ClientError:
            answer = ask.problem("bad-gateway")
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _planted(self, act: Callable[[], Awaitable[Answer | None]]) -> Answer | None:
        """Do it if it is its turn; None if it is not, or if it could not be done."""
        self._fitting += 1
        if self._fitting % self.every:
            return None
        answer = await act()
        self.planted += answer is not None
        return answer


# What is done instead of asking the target: None says that it has to be asked after all.


async def make_up(front: FaultyFront, ask: Ask) -> Answer | None:
    """The transfer that it would have been, by what the source looks like now."""
    wanted = ask.json
    amount, path = wanted.get("amount"), f"/wallets/{wanted.get('source_wallet_id')}"
    # Nonsense and refusals are not lost by being acknowledged; that would be yet another fault.
    if type(amount) is not int or not WALLET_PATH.fullmatch(path) or wanted.keys() - _MEMBERS:
        return None
    source = (await front.forward(Ask("GET", path, ask.headers, b""))).json
    if not 0 < amount <= source.get("available", 0):
        return None
    transfer = {
        "id": new_id(),
        "source_wallet_id": source["id"],
        "destination_wallet_id": wanted.get("destination_wallet_id"),
        "amount": amount,
        "currency": wanted.get("currency"),
        "kind": "transfer",
        "status": "posted",
        "reference": wanted.get("reference"),
        "metadata": wanted.get("metadata") or {},
        "source_version": source["version"] + 1,
        "source_balance_after": source["balance"] - amount,
        "created_at": now(),
    }
    return ask.answered(201, orjson.dumps(transfer), {"Content-Type": "application/json"})


async def pay_anew(front: FaultyFront, ask: Ask) -> Answer:
    return await front.forward(ask.under_a_new_key())


async def read_as_first(front: FaultyFront, ask: Ask) -> Answer:
    first = front.first_reads[ask.wallet_read or ""]
    return ask.answered(first.status, first.body, first.headers)


async def fail(_: FaultyFront, ask: Ask) -> Answer:
    return ask.problem("internal-error")


async def turn_away(_: FaultyFront, ask: Ask) -> Answer:
    return ask.problem("mailbox-full", Retry_After="1")


# What is done after the target was asked: None says that nothing came of it.


async def pay_twice(front: FaultyFront, ask: Ask, answer: Answer) -> Answer | None:
    again = await front.forward(ask.under_a_new_key())
    return answer if again.status == 201 else None


async def credit_twice(front: FaultyFront, ask: Ask, answer: Answer) -> Answer:
    assert front.damage is not None
    await front.damage(ask.json["destination_wallet_id"], ask.json["amount"])
    return answer


async def change_time(_: FaultyFront, ask: Ask, answer: Answer) -> Answer:
    return answer.saying("created_at", now())


async def change_amount(_: FaultyFront, ask: Ask, answer: Answer) -> Answer:
    return answer.saying("amount", answer.json["amount"] + 1)


async def linger(front: FaultyFront, ask: Ask, answer: Answer) -> Answer:
    await asyncio.sleep(front.slow_s)
    return answer


async def crash(_: FaultyFront, ask: Ask, answer: Answer) -> Answer:
    return ask.problem("internal-error")


def now() -> str:
    return rfc3339(datetime.now(UTC))


def is_first_payment(front: FaultyFront, ask: Ask) -> bool:
    # A made-up answer to a repetition would be a changed replay: another fault than a lost payment.
    return ask.pays and ask.key != "" and ask.key not in front.paid


def is_new_payment(ask: Ask, answer: Answer) -> bool:
    return ask.pays and answer.status == 201 and not answer.is_replay


_Instead = tuple[
    Callable[[FaultyFront, Ask], bool], Callable[[FaultyFront, Ask], Awaitable[Answer | None]]
]
_NEVER_INSTEAD: _Instead = (lambda front, ask: False, fail)
_INSTEAD: dict[Fault | None, _Instead] = {
    Fault.LOST: (is_first_payment, make_up),
    Fault.NEW_ON_REPLAY: (
        lambda front, ask: ask.pays and front.sent.get(ask.key) == ask.body,
        pay_anew,
    ),
    Fault.STALE_READ: (lambda front, ask: ask.wallet_read in front.first_reads, read_as_first),
    Fault.FAILING: (lambda front, ask: ask.pays, fail),
    Fault.BUSY: (lambda front, ask: ask.pays or ask.path.endswith("/reversal"), turn_away),
}

_Afterwards = tuple[
    Callable[[Ask, Answer], bool],
    Callable[[FaultyFront, Ask, Answer], Awaitable[Answer | None]],
]
_NEVER_AFTERWARDS: _Afterwards = (lambda ask, answer: False, crash)
_AFTERWARDS: dict[Fault | None, _Afterwards] = {
    Fault.DOUBLED: (is_new_payment, pay_twice),
    Fault.DOUBLE_CREDIT: (is_new_payment, credit_twice),
    Fault.CHANGED_REPLAY: (
        lambda ask, answer: answer.is_replay and "created_at" in answer.json,
        change_time,
    ),
    Fault.WRONG_AMOUNT: (is_new_payment, change_amount),
    Fault.SLOW: (lambda ask, answer: ask.pays, linger),
    Fault.CRASHING_ON_NONSENSE: (lambda ask, answer: answer.status == 400, crash),
}


@asynccontextmanager
async def faulty_front(
    target_url: str,
    fault: Fault | None,
    *,
    every: int | None = None,
    slow_s: float = 1.5,
    damage: Damage | None = None,
) -> AsyncIterator[FaultyFront]:
    """A proxy before `target_url`, until the block ends.

    Every `every`-th request that fits is done wrong. `damage` gives a
    wallet (its id) that much (in minor units) in the database, for DOUBLE_CREDIT. Answers are read
    to their end before they are passed on, so this is nothing for event streams.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=_UNASKED,
    ) as session:
        times = every or (_EVERY_OF.get(fault, _EVERY) if fault else _EVERY)
        front = FaultyFront(target_url, fault, session, times, slow_s, damage)
        # The limits and the decoding of bodies are the target's business.
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", front.handle)
        async with serving(application, auto_decompress=False) as front.url:
            yield front
