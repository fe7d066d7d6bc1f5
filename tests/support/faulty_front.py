"""A reverse proxy that injects one kind of fault, to test that the checks find it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from io import BytesIO
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.support.serving import serving
from transferd.commit.origin import Origin
from transferd.domain.errors import InternalFailure, MailboxFull, TransferdError
from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.times import rfc3339
from transferd.ledger.ids import new_id
from transferd.web.problems import MEDIA_TYPE, Problem


class Fault(Enum):
    """The faults. A payment is a POST /transfers that is not a dry run."""

    LOST = "a payment is acknowledged with an invented transfer and never reaches the service"
    DOUBLED = "an acknowledged payment is executed again, under another key"
    DOUBLE_CREDIT = "an acknowledged payment is credited again, in the database only"
    CHANGED_REPLAY = "a replayed answer differs from the first in one value"
    NEW_ON_REPLAY = "a repeated payment is executed again, under another key"
    STALE_READ = "every read of a wallet gets the answer to its first read"
    WRONG_AMOUNT = "a payment is acknowledged with another amount than the requested one"
    SLOW = "a payment is answered late; a replay is not"
    FAILING = "a payment is answered by 500 and never reaches the service"
    BUSY = "a new payment is answered by 429 `mailbox-full`, which is back-pressure, not a fault"
    HOLD_KEPT = "a release is acknowledged and never reaches the service"
    CAPTURED_AGAIN = "an acknowledged capture is executed again, under another key"
    REFUSED_AND_RELEASED = "a refused request about a hold releases the hold, under another key"
    FOREIGN_USER = "every read of a wallet names a user of another ledger"
    FAILING_ON_MALFORMED = "a malformed request is answered by 500 instead of 400"


# One of this many candidates gets a wrong answer: few, as in practice, except for back-pressure.
# Faults that do not use `_is_due` change every candidate: candidates are rare, or the wrong answer
# is the same each time.
_EVERY = 50
_EVERY_BUSY = 2
_LATE_S = 1.5
_OTHER = Ledger(4095, "other", "ledger_4095")
_HOLD_PATH = re.compile(r"(/holds/[0-9a-f-]{36})/(\w+)")
_WALLET_PATH = re.compile(r"/wallets/([0-9a-f-]{36})")
# Hop-by-hop headers, and the length, which a fault may change.
_HOP = ("Connection", "Content-Length", "Keep-Alive", "Transfer-Encoding")
# Headers that the client library would add.
_UNASKED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

Damage = Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True)
class Message:
    """A request or an answer."""

    headers: CIMultiDict[str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The members of the body; empty if it is not a JSON object."""
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Answer(Message):
    """The answer to a request."""

    status: int

    @property
    def is_replay(self) -> bool:
        return "Idempotent-Replayed" in self.headers

    def with_value(self, name: str, value: object) -> "Answer":
        """The same answer with another value for this member."""
        return replace(self, body=orjson.dumps(self.json | {name: value}))


@dataclass(frozen=True)
class Ask(Message):
    """A request. `path` includes the query and is not decoded."""

    method: str
    path: str

    @property
    def pays(self) -> bool:
        """Whether it is a payment. A dry run has a query."""
        return self.method == "POST" and self.path == "/transfers"

    @property
    def wallet_read(self) -> str | None:
        """The id of the wallet that it reads; None for other requests."""
        match = _WALLET_PATH.fullmatch(self.path.partition("?")[0])
        return match[1] if match and self.method == "GET" else None

    @property
    def hold_change(self) -> str:
        """The last part of the path of a capture, adjustment or release; empty for others."""
        match = _HOLD_PATH.fullmatch(self.path)
        return match[2] if match and self.method == "POST" else ""

    @property
    def key(self) -> str:
        return self.headers.get("Idempotency-Key", "")

    def under_a_new_key(self) -> "Ask":
        headers = self.headers.copy()
        headers["Idempotency-Key"] = str(uuid4())
        return replace(self, headers=headers)

    def failed(self, error: TransferdError) -> Answer:
        """The problem that the service would answer for the error."""
        problem = Problem.of_error(error)
        headers = CIMultiDict({"Content-Type": MEDIA_TYPE, **problem.headers})
        return Answer(headers, problem.body(Origin(new_id(MAIN), "", self.path)), problem.status)


@dataclass
class FaultyFront:
    """The proxy. `url` is its address; `planted` counts the injected faults."""

    target: str
    fault: Fault | None
    session: aiohttp.ClientSession
    every: int
    damage: Damage | None
    url: str = ""
    planted: int = 0
    # The body of each sent payment by key, and the keys of the acknowledged ones.
    sent: dict[str, bytes] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)
    # The answer to the first read of each wallet.
    first_reads: dict[str, Answer] = field(default_factory=dict)
    # The invented answer to each release that was kept from the service, by key.
    kept: dict[str, Answer] = field(default_factory=dict)
    _candidates: int = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        ask = Ask(_end_to_end(request), await request.read(), request.method, request.raw_path)
        answer = await self._instead(ask)
        if answer is None:
            true = await self.forward(ask)
            answer = await self._changed(ask, true)
            self.planted += answer is not None
            answer = answer or true
        else:
            self.planted += 1
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def forward(self, ask: Ask) -> Answer:
        """Send the request to the target and return its answer."""
        if ask.pays:
            self.sent.setdefault(ask.key, ask.body)
        async with self.session.request(
            ask.method,
            URL(self.target + ask.path, encoded=True),
            headers=ask.headers,
            # aiohttp warns about large bodies that are bytes.
            data=BytesIO(ask.body) if ask.body else None,
            allow_redirects=False,
        ) as response:
            answer = Answer(_end_to_end(response), await response.read(), response.status)
        if ask.pays and answer.status == 201:
            self.paid.add(ask.key)
        if (wallet := ask.wallet_read) and answer.status == 200:
            self.first_reads.setdefault(wallet, answer)
        return answer

    async def _instead(self, ask: Ask) -> Answer | None:
        """The wrong answer of a fault that bypasses the target; None: ask the target."""
        match self.fault:
            # An invented answer to a repetition would be another fault: a changed replay.
            case Fault.LOST if ask.pays and ask.key and ask.key not in self.paid and self._is_due():
                return await self._made_up(ask)
            case Fault.NEW_ON_REPLAY if ask.pays and self.sent.get(ask.key) == ask.body:
                return await self.forward(ask.under_a_new_key())
            case Fault.STALE_READ:
                return self.first_reads.get(ask.wallet_read or "")
            case Fault.HOLD_KEPT if ask.hold_change == "release":
                return await self._keep(ask)
            case Fault.FAILING if ask.pays and self._is_due():
                return ask.failed(InternalFailure())
            case Fault.BUSY if self._may_be_new(ask) and self._is_due():
                return ask.failed(MailboxFull())
        return None

    async def _changed(self, ask: Ask, answer: Answer) -> Answer | None:
        """The wrong answer in place of the target's; None: keep the target's answer."""
        is_new = ask.pays and _is_done(answer)
        match self.fault:
            case Fault.DOUBLED if is_new and self._is_due():
                again = await self.forward(ask.under_a_new_key())
                return answer if again.status == 201 else None
            case Fault.DOUBLE_CREDIT if is_new and self._is_due():
                assert self.damage is not None
                await self.damage(ask.json["destination_wallet_id"], ask.json["amount"])
                return answer
            case Fault.CHANGED_REPLAY if answer.is_replay and "created_at" in answer.json:
                return answer.with_value("created_at", rfc3339(datetime.now(UTC)))
            case Fault.WRONG_AMOUNT if is_new and self._is_due():
                return answer.with_value("amount", answer.json["amount"] + 1)
            case Fault.SLOW if ask.pays and not answer.is_replay and self._is_due():
                await asyncio.sleep(_LATE_S)
                return answer
            case Fault.CAPTURED_AGAIN if _is_done(answer) and ask.hold_change == "capture":
                again = await self.forward(ask.under_a_new_key())
                return answer if again.status == 201 else None
            case Fault.REFUSED_AND_RELEASED if answer.status == 422 and ask.hold_change:
                path = ask.path.replace(ask.hold_change, "release")
                again = await self.forward(replace(ask.under_a_new_key(), path=path, body=b"{}"))
                return answer if again.status == 200 else None
            case Fault.FOREIGN_USER if ask.wallet_read and answer.status == 200:
                return answer.with_value("user_id", new_id(_OTHER))
            case Fault.FAILING_ON_MALFORMED if answer.status == 400:
                return ask.failed(InternalFailure())
        return None

    def _may_be_new(self, ask: Ask) -> bool:
        """Whether it is a reversal, or a payment that was not acknowledged before."""
        return (ask.pays and ask.key not in self.paid) or ask.path.endswith("/reversal")

    def _is_due(self) -> bool:
        self._candidates += 1
        return self._candidates % self.every == 0

    async def _keep(self, ask: Ask) -> Answer | None:
        """An invented 200 to a release; None if the service would refuse it."""
        if ask.key in self.kept:
            answer = self.kept[ask.key]
            return replace(
                answer, headers=CIMultiDict(answer.headers, **{"Idempotent-Replayed": "true"})
            )
        found = await self.forward(Ask(ask.headers, b"", "GET", ask.path.removesuffix("/release")))
        hold = found.json
        if hold.get("status") != "active":
            return None
        released = hold | {"status": "released", "released": hold["remaining"], "remaining": 0}
        headers = CIMultiDict({"Content-Type": "application/json"})
        self.kept[ask.key] = answer = Answer(headers, orjson.dumps(released), 200)
        return answer

    async def _made_up(self, ask: Ask) -> Answer | None:
        """An invented 201 to a payment; None if the service would refuse the payment."""
        wanted = ask.json
        amount, path = wanted.get("amount"), f"/wallets/{wanted.get('source_wallet_id')}"
        known = {"source_wallet_id", "destination_wallet_id", "amount", "currency"}
        if type(amount) is not int or not _WALLET_PATH.fullmatch(path) or wanted.keys() != known:
            return None
        source = (await self.forward(Ask(ask.headers, b"", "GET", path))).json
        if not 0 < amount <= source.get("available", 0):
            return None
        transfer = wanted | {
            "id": new_id(MAIN),
            "kind": "transfer",
            "status": "posted",
            "reference": None,
            "metadata": {},
            "source_version": source["version"] + 1,
            "source_balance_after": source["balance"] - amount,
            "created_at": rfc3339(datetime.now(UTC)),
        }
        headers = CIMultiDict({"Content-Type": "application/json"})
        return Answer(headers, orjson.dumps(transfer), 201)


def _is_done(answer: Answer) -> bool:
    return answer.status == 201 and not answer.is_replay


def _end_to_end(message: web.Request | aiohttp.ClientResponse) -> CIMultiDict[str]:
    headers = message.headers.copy()
    for name in _HOP:
        headers.popall(name, None)
    return headers


@asynccontextmanager
async def faulty_front(
    target_url: str, fault: Fault | None, *, every: int | None = None, damage: Damage | None = None
) -> AsyncIterator[FaultyFront]:
    """A proxy in front of `target_url`, until the block ends.

    One of `every` payments that the fault applies to is answered wrongly. DOUBLE_CREDIT calls
    `damage` with the id of a wallet and an amount in minor units, to credit it in the database.
    The proxy reads each answer completely before it sends it, so event streams do not work.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=_UNASKED,
    ) as session:
        times = every or (_EVERY_BUSY if fault is Fault.BUSY else _EVERY)
        front = FaultyFront(target_url, fault, session, times, damage)
        # The target limits and decodes bodies.
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", front.handle)
        async with serving(application, auto_decompress=False) as front.url:
            yield front
