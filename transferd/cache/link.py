"""The connection to Redis, with a circuit breaker: an outage costs one call, not one per group."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from transferd.config import Limits
from transferd.observability.facts import CacheFailed, Facts

_FAILURES = (TimeoutError, RedisError, OSError)


class Script:
    """A Lua script of this package."""

    def __init__(self, file: str) -> None:
        self.source = resources.files("transferd.cache").joinpath(file).read_text()
        # EVALSHA names a script by its SHA-1. Security does not depend on it.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Link:
    """Calls Redis; a call returns None if Redis does not answer. Opens with `async with`.

    A `url` of None turns the cache off: every call returns None.
    """

    def __init__(self, url: str | None, limits: Limits, facts: Facts) -> None:
        self._url = url
        self._limits = limits
        self._facts = facts
        self._client: Redis | None = None
        # The task that pings Redis while the breaker is open.
        self._probe: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "off" if self._client is None else "open" if self.is_broken else "closed"
        return f"<Link to Redis, breaker {state}>"

    async def __aenter__(self) -> "Link":
        if self._url is not None:
            self._client = Redis.from_url(
                self._url,
                socket_timeout=self._limits.redis_timeout_s,
                socket_connect_timeout=self._limits.redis_timeout_s,
                # A pooled connection that was closed while idle is replaced at once. A timeout is
                # not retried, because the caller's group waits.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        # Without a client no call is made, so no call starts another probe.
        client, self._client = self._client, None
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
            self._probe = None
        if client is not None:
            await client.aclose()

    @property
    def is_broken(self) -> bool:
        """Whether the breaker is open, so that calls return None at once."""
        return self._probe is not None

    @property
    def is_available(self) -> bool:
        """Whether calls are sent to Redis."""
        return self._client is not None and not self.is_broken

    async def run(self, script: Script, *arguments: bytes | str | int) -> Any:
        """Run a script without keys. Returns its result, or None if Redis does not answer."""
        return await self._guarded(lambda client: _evaluate(client, script, arguments))

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None] | None:
        """Read several keys in one round trip. Returns None if Redis does not answer."""
        result: Sequence[bytes | None] | None = await self._guarded(
            lambda client: client.mget(keys)
        )
        return result

    async def _guarded(self, call: Callable[[Redis], Awaitable[Any]]) -> Any:
        if self._client is None or self.is_broken:
            return None
        try:
            return await call(self._client)
        except _FAILURES as error:
            self._facts.emit(CacheFailed(error))
            # One probe at a time, and none after `__aexit__`. Concurrent calls fail here as well.
            if self._probe is None and self._client is not None:
                self._probe = asyncio.create_task(self._until_back(self._client))
            return None

    async def _until_back(self, client: Redis) -> None:
        """Ping Redis in the background until it answers, so that no group waits for a timeout."""
        while True:
            await asyncio.sleep(self._limits.breaker_open_s)
            try:
                await client.ping()
            except Exception as error:  # any error: if this task ends, the breaker stays open
                self._facts.emit(CacheFailed(error))
            else:
                break
        self._probe = None


async def _evaluate(client: Redis, script: Script, arguments: Sequence[bytes | str | int]) -> Any:
    try:
        return await client.evalsha(script.sha, 0, *arguments)
    except NoScriptError:
        # Redis was restarted or its scripts were flushed. EVAL stores the script again.
        return await client.eval(script.source, 0, *arguments)
