"""The connection to Redis, with a circuit breaker: an outage costs one call, not one per group."""

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


class Script:
    """A Lua script of this package, by file name."""

    def __init__(self, file: str) -> None:
        self.source = resources.files("transferd.cache").joinpath(file).read_text()
        # Redis itself names scripts by their SHA-1; nothing depends on its strength.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Link:
    """Calls to Redis that answer None when it cannot be had. Opens with `async with`.

    `url` None means that there is no cache at all: every call answers None.
    """

    def __init__(
        self, url: str | None, limits: Limits, facts: Facts, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._client: Redis | None = None
        self._open_until = 0.0

    def __repr__(self) -> str:
        state = "off" if self._client is None else "open" if self.is_broken else "closed"
        return f"<Link to Redis, breaker {state}>"

    async def __aenter__(self) -> "Link":
        if self._url is not None:
            self._client = Redis.from_url(
                self._url,
                socket_timeout=self._limits.redis_timeout_s,
                socket_connect_timeout=self._limits.redis_timeout_s,
                # A pooled connection that died while idle is replaced at once; a time-out is not
                # repeated, since the caller's group waits.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def is_broken(self) -> bool:
        """Whether calls are answered with None without trying."""
        return self._clock() < self._open_until

    @property
    def is_available(self) -> bool:
        """Whether calls are tried at all."""
        return self._client is not None and not self.is_broken

    async def run(self, script: Script, *arguments: bytes | str | int) -> Any:
        """Run a script without keys; what it returned, or None if Redis cannot be had."""
        return await self._guarded(lambda client: _evaluate(client, script, arguments))

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None] | None:
        """The values of several keys in one round trip, or None if Redis cannot be had."""
        result: Sequence[bytes | None] | None = await self._guarded(
            lambda client: client.mget(keys)
        )
        return result

    async def _guarded(self, call: Callable[[Redis], Awaitable[Any]]) -> Any:
        if self._client is None or not self.is_available:
            return None
        try:
            return await call(self._client)
        except (TimeoutError, RedisError, OSError) as error:
            self._open_until = self._clock() + self._limits.breaker_open_s
            self._facts.emit(CacheFailed(error))
            return None


async def _evaluate(client: Redis, script: Script, arguments: Sequence[bytes | str | int]) -> Any:
    try:
        return await client.evalsha(script.sha, 0, *arguments)
    except NoScriptError:
        # Redis was restarted or its scripts were flushed; EVAL stores it again.
        return await client.eval(script.source, 0, *arguments)
