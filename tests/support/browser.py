"""Chromium without a window, driven over its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.command import Command, running
from tests.support.waiting import patient_s, until

# As distributions call it.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    # A container has little of what Chromium shares between its processes.
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "about:blank",
)
# A picture of a page is a message of some megabytes.
_MESSAGE_BYTES_MAX = 64 * 2**20
_WITHIN_S = 10.0


class Page:
    """One page; `complaints` are the exceptions and errors of its scripts so far."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session_id: str) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._session_id = session_id
        self._numbers = itertools.count(1_000)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> None:
        """Take what the browser says, until it ends."""
        async for message in self._socket:
            said = json.loads(message.data)
            if (future := self._waiting.pop(said.get("id", 0), None)) is not None:
                future.set_result(said)
            elif (complaint := _complaint(said)) is not None:
                self.complaints.append(complaint)

    async def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of a command of the protocol; AssertionError if there is none."""
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(
            {
                "id": number,
                "sessionId": self._session_id,
                "method": method,
                "params": parameters,
            }
        )
        said = await asyncio.wait_for(future, patient_s(_WITHIN_S))
        assert "error" not in said, f"{method}: {said}"
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str, *, width: int, height: int) -> None:
        """Load a page in a window of this size."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        await self.send("Page.navigate", url=url)

    async def prefer(self, theme: str) -> None:
        """What the system wants pages to look like: `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression is, as JSON can tell it; AssertionError if it throws."""
        said = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, f"{expression}: {said}"
        return said["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true; it may throw before."""

        async def holds() -> bool:
            return bool(
                await self.value(f"(() => {{ try {{ return !!({expression}) }} catch {{}} }})()")
            )

        try:
            await until(holds, within_s=_WITHIN_S)
        except AssertionError:
            raise AssertionError(f"never: {expression}; {self.complaints}") from None

    async def screenshot(self, file: Path) -> None:
        """Write what is seen as PNG."""
        said = await self.send("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(said["data"]))


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Page]:
    """An empty page of a new browser, which has ended when the block has."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.fail("chromium is missing: .ci/services installs it as root", pytrace=False)
    # Its sandbox refuses to serve root.
    as_root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    async with AsyncExitStack() as exits:
        command = await exits.enter_async_context(
            running(
                *as_root,
                f"--user-data-dir={profile}",
                *_ARGUMENTS,
                settings=_no_proxy(),
                program=(program,),
            )
        )
        session = await exits.enter_async_context(aiohttp.ClientSession())
        socket = await exits.enter_async_context(
            session.ws_connect(await _address(command), max_msg_size=_MESSAGE_BYTES_MAX)
        )
        page = Page(socket, await _attached(socket))
        reading = asyncio.create_task(page.read())
        exits.callback(reading.cancel)
        yield page
        # So that it ends its other processes itself; what is left is killed with the block.
        await socket.send_json({"id": 1, "method": "Browser.close"})
        await command.end()


def _no_proxy() -> Mapping[str, str]:
    return {"no_proxy": "*", "NO_PROXY": "*"}


async def _address(command: Command) -> str:
    await command.says("DevTools listening on ")
    match = re.search(r"ws://\S+", command.output)
    assert match is not None, command.output
    return match.group()


async def _attached(socket: aiohttp.ClientWebSocketResponse) -> str:
    """A session with the page that the browser began with."""

    async def ask(number: int, method: str, **parameters: object) -> dict[str, Any]:
        await socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            said = await socket.receive_json(timeout=patient_s(_WITHIN_S))
            if said.get("id") == number:
                result: dict[str, Any] = said["result"]
                return result

    targets = (await ask(1, "Target.getTargets"))["targetInfos"]
    page = next(each["targetId"] for each in targets if each["type"] == "page")
    session = await ask(2, "Target.attachToTarget", targetId=page, flatten=True)
    return str(session["sessionId"])


def _complaint(said: dict[str, Any]) -> str | None:
    """What went wrong in a page, if this message tells of something that did."""
    told = said.get("params", {})
    match said.get("method"):
        case "Runtime.exceptionThrown":
            return str(told["exceptionDetails"])
        case "Runtime.consoleAPICalled" if told["type"] in {"error", "assert"}:
            return str(told["args"])
        case "Log.entryAdded" if told["entry"]["level"] == "error":
            return str(told["entry"])
    return None
