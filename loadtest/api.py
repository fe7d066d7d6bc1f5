"""The requests of the suite itself, before and after a run."""

import random

import gevent
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from loadtest.progress import CONCURRENCY
from loadtest.proof.answers import IN_PROGRESS, Answer

# Tries of a request that gets back-pressure, a 5xx or no answer; the longest wait between two.
_TRIES_MAX = 20
_WAIT_MAX_S = 2.0
_REPEATED = frozenset({409, 429, 500, 502, 503, 504})


def traceparent(*, sampled: bool) -> str:
    """The header of a new trace: https://www.w3.org/TR/trace-context/."""
    return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-0{sampled:d}"


class ServiceError(Exception):
    """The service is unreachable, or refused a request of the suite; the message is one line."""


class Api:
    """Sends requests to `host`; a request without an answer is repeated with its key."""

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

    def get(self, path: str) -> Answer:
        """GET, repeated until there is a final answer. Raises ServiceError."""
        return self._repeated("GET", path, None, {})

    def post(self, path: str, body: bytes, key: str) -> Answer:
        """POST with an Idempotency-Key, repeated like `get`. Raises ServiceError."""
        return self._repeated("POST", path, body, {"Idempotency-Key": key})

    def close(self) -> None:
        self._client.close()

    def _repeated(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        complaint = ""
        for attempt in range(_TRIES_MAX):
            if attempt:
                gevent.sleep(min(0.05 * 2**attempt, _WAIT_MAX_S))
            try:
                answer = self._once(method, path, body, headers)
            except ConnectionRefusedError:
                raise ServiceError(
                    f"nothing answers at {self._host}: start the service (make run), or pass"
                    " its URL as --host"
                ) from None
            except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
                complaint = str(error) or type(error).__name__
                continue
            # A 409 may also be a refusal, which is final.
            if answer.status not in _REPEATED or (
                answer.status == 409 and answer.code != IN_PROGRESS
            ):
                return answer
            complaint = f"{answer.status} {answer.code}"
        raise ServiceError(f"{method} {path} at {self._host}: {complaint}, {_TRIES_MAX} times")

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        headers = {**self._headers, **headers, "traceparent": traceparent(sampled=False)}
        response = self._client.request(method, path, body=body or b"", headers=headers)
        data = bytes(response.read())
        found = {name.lower(): value for name, value in response.items()}
        return Answer.of(int(response.status_code), found, data)
