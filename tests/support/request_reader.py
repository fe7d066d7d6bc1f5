"""Requests without a connection, and the service's reader of their bodies."""

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from transferd.commit.origin import Origin
from transferd.config import Limits
from transferd.domain.api_key import ADMIN
from transferd.web.auth import Principal
from transferd.web.calls import Call
from transferd.web.context import AppContext
from transferd.web.schemas import Body

Model = TypeVar("Model", bound=Body)

ORIGIN = Origin("a-request", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "/here")
JSON = ("Content-Type", "application/json")


def request_of(
    path: str = "/", headers: Iterable[tuple[str, str]] = (), payload: Any = None
) -> web.Request:
    """A POST with these headers; a name may occur more than once."""
    request = make_mocked_request("POST", path, payload=payload)
    # The mock rejects bytes that are not UTF-8; the parser of the service accepts them.
    request._headers = CIMultiDictProxy(CIMultiDict(headers))
    return request


def call_of(request: web.Request) -> Call:
    """The call of a route that uses only the limits of its context."""
    context = cast(AppContext, SimpleNamespace(limits=Limits()))
    call = Call(context, request, ORIGIN)
    call.principal = Principal(1, frozenset({ADMIN}))
    return call


class Reader:
    """Reads bodies with the service's code, on one event loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def read(
        self,
        model: type[Model],
        raw: bytes,
        *,
        headers: Iterable[tuple[str, str]] = (JSON,),
        bytes_max: int | None = None,
    ) -> Model:
        """The value of a body. Raises Problem."""

        async def read() -> Model:
            payload = StreamReader(BaseProtocol(asyncio.get_running_loop()), limit=2**23)
            payload.feed_data(raw)
            payload.feed_eof()
            call = call_of(request_of(headers=headers, payload=payload))
            return await call.body(model, bytes_max=bytes_max)

        return self._runner.run(read())
