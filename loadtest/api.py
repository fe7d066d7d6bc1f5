"""The service as the suite itself asks it, before and after a run: plain requests, many at once."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import gevent
import orjson
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from loadtest.proof.answers import code_of

# How many at once: enough for groups, few enough to leave the mailboxes of a server room.
CONCURRENCY = 32
# Repetitions of what was turned away or not answered, and the wait before each.
_TRIES_MAX = 20
_WAIT_MAX_S = 2.0
_REPEATED = frozenset({409, 429, 500, 502, 503, 504})

_T = TypeVar("_T")
_R = TypeVar("_R")


def traceparent(*, sampled: bool) -> str:
    """A new trace, as https://www.w3.org/TR/trace-context/ writes it."""
    return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-0{sampled:d}"


class ServiceError(Exception):
    """The service cannot be asked, or said no where that cannot be: one line for people."""


@dataclass(frozen=True)
class Reply:
    """An answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem, or an empty text."""
        return code_of(self.body)


class Api:
    """Asks the service at `host`; a request that may have got lost is repeated with its key."""

    def __init__(
        self, host: str, api_key: str, timeout_s: float, *, insecure: bool = False
    ) -> None:
        self._host = host.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._client = HTTPClient.from_url(
            self._host,
            concurrency=CONCURRENCY,
            network_timeout=timeout_s,
            connection_timeout=timeout_s,
            insecure=insecure,
        )

    def get(self, path: str) -> Reply:
        """GET, repeated until there is an answer that can stay. Raises ServiceError."""
        return self._patiently("GET", path, None, {})

    def post(self, path: str, body: bytes, key: str) -> Reply:
        """POST with an Idempotency-Key, likewise. Raises ServiceError."""
        return self._patiently("POST", path, body, {"Idempotency-Key": key})

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def _patiently(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Reply:
        complaint = ""
        for attempt in range(_TRIES_MAX):
            if attempt:
                gevent.sleep(min(0.05 * 2**attempt, _WAIT_MAX_S))
            try:
                reply = self._once(method, path, body, headers)
            except ConnectionRefusedError:
                raise ServiceError(
                    f"nothing answers at {self._host}: start the service (make run), or say"
                    " --host where it is"
                ) from None
            except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
                complaint = str(error) or type(error).__name__
                continue
            # 409 is also a refusal, which is final.
            if reply.status not in _REPEATED or (
                reply.status == 409 and reply.code != "request-in-progress"
            ):
                return reply
            complaint = f"{reply.status} {reply.code}"
        raise ServiceError(f"{method} {path} at {self._host}: {complaint}, {_TRIES_MAX} times")

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        headers = {**self._headers, **headers, "traceparent": traceparent(sampled=False)}
        response = self._client.request(method, path, body=body or b"", headers=headers)
        data = bytes(response.read())
        found = {name.lower(): value for name, value in response.items()}
        return Reply(int(response.status_code), found, data)


def side_by_side(
    work: Callable[[_T], _R], items: Iterable[_T], tell: Callable[[int], None] = lambda done: None
) -> list[_R]:
    """Do the work for each item, so many at once; `tell` hears how many are done.

    The results are in the order of the items. The first error ends it all and is raised.
    """
    pool = Pool(CONCURRENCY)
    coming = pool.imap(work, items, maxsize=CONCURRENCY * 4)
    results = []
    try:
        for done, result in enumerate(coming, 1):
            results.append(result)
            tell(done)
    finally:
        # Whoever stops listening wants no more of it to happen.
        coming.kill()
        pool.kill()
    return results
