"""The fixture that all unit tests of request bodies share."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.request_reader import Reader


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """The service's reader of request bodies."""
    with asyncio.Runner() as runner:
        yield Reader(runner)
