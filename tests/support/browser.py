"""The distribution's Chromium without a window, driven by Playwright."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright, expect

from tests.support.waiting import patient_s

# The name of the program differs between distributions.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WITHIN_MS = patient_s(10.0) * 1_000


@asynccontextmanager
async def open_page(width: int, height: int) -> AsyncIterator[Page]:
    """An empty page of a new browser; AssertionError at the end if its scripts reported errors."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.fail("chromium is missing: .ci/services installs it as root", pytrace=False)
    expect.set_options(timeout=_WITHIN_MS)
    errors: list[str] = []

    def log(message: ConsoleMessage) -> None:
        if message.type in {"error", "assert"}:
            errors.append(message.text)

    async with async_playwright() as playwright:
        # --no-proxy-server: the pages are on loopback, and the environment may name a proxy.
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-proxy-server"], timeout=_WITHIN_MS
        )
        async with browser:
            page = await browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(_WITHIN_MS)
            page.on("console", log)
            page.on("pageerror", lambda error: errors.append(str(error)))
            yield page
            assert errors == []
