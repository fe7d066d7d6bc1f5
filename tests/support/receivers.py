"""A receiver of webhooks that records its requests and gives the answers that a test sets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.support.serving import serving

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Received:
    """A request: headers in lower case, the body as bytes."""

    headers: dict[str, str]
    body: bytes
    # By the clock of the event loop.
    at_s: float

    @property
    def json(self) -> Any:
        """The event."""
        return orjson.loads(self.body)

    @property
    def event_id(self) -> str:
        """The id of the event, the same in each repetition."""
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """`answer` may be replaced at any time; `received` is in the order of arrival."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    in_progress: int = 0
    most_in_progress: int = 0
    answer: Answer | None = None

    def event_ids(self) -> list[str]:
        """The ids of all received events, repetitions included."""
        return [request.event_id for request in self.received]

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Record the request, then answer it."""
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        try:
            headers = {name.lower(): value for name, value in request.headers.items()}
            at_s = asyncio.get_running_loop().time()
            self.received.append(Received(headers, await request.read(), at_s))
            if self.answer is not None:
                return await self.answer(request)
            return web.Response(status=204)
        finally:
            self.in_progress -= 1


def status(code: int, **headers: str) -> Answer:
    """Answer every request with this status."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers, text=f"answer {code}")

    return answer


def after(wait: asyncio.Event, then: Answer | None = None) -> Answer:
    """Wait until the event is set, then answer with `then` or 204."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await wait.wait()
        return await (then or status(204))(request)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Answer one request with each answer, and all further requests with the last one."""
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        chosen = left.pop(0) if len(left) > 1 else left[0]
        return await chosen(request)

    return answer


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of loopback."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.take)
    async with serving(application) as url:
        receiver.url = f"{url}/hooks"
        yield receiver
