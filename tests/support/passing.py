"""A request and its answer on their way through a proxy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from transferd.commit.origin import Origin
from transferd.ledger.ids import new_id
from transferd.web.problems import MEDIA_TYPE, TYPES, render

WALLET_PATH = re.compile(r"/wallets/([0-9a-f-]{36})")
# These belong to one connection (RFC 9110 section 7.6.1), and there are two.
_OF_THE_CONNECTION = (
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)


@dataclass(frozen=True)
class Ask:
    """A request; `path` is as it was sent, with the query."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    # What an answer of our own calls it if it came without an id.
    own_id: str = field(default_factory=new_id)

    @property
    def pays(self) -> bool:
        """Whether it is a payment. A dry run has a query."""
        return self.method == "POST" and self.path == "/transfers"

    @property
    def wallet_read(self) -> str | None:
        """The id of the wallet that it reads."""
        match = WALLET_PATH.fullmatch(self.path.partition("?")[0])
        return match[1] if match and self.method == "GET" else None

    @property
    def key(self) -> str:
        """Its Idempotency-Key, or nothing."""
        return self.headers.get("Idempotency-Key", "")

    @property
    def json(self) -> dict[str, Any]:
        """The members of its body; none unless it is a JSON object."""
        return members(self.body)

    def under_a_new_key(self) -> "Ask":
        """The same once more, as another intent."""
        headers = self.headers.copy()
        headers["Idempotency-Key"] = str(uuid4())
        return replace(self, headers=headers)

    def answered(self, status: int, body: bytes, headers: Mapping[str, str]) -> "Answer":
        """An answer of our own, with the id that every answer of the service carries."""
        mine = CIMultiDict(headers)
        mine["X-Request-ID"] = self._request_id
        return Answer(status, mine, body)

    def problem(self, code: str, **facts: str) -> "Answer":
        """A problem, as the service would tell it; `facts` are headers."""
        origin = Origin(self._request_id, "", self.path.partition("?")[0])
        body = render(code, TYPES[code].meaning, {}, origin)
        headers = {name.replace("_", "-"): value for name, value in facts.items()}
        return self.answered(TYPES[code].status, body, {"Content-Type": MEDIA_TYPE, **headers})

    @property
    def _request_id(self) -> str:
        return self.headers.get("X-Request-ID") or self.own_id


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def is_replay(self) -> bool:
        """Whether it was given before."""
        return "Idempotent-Replayed" in self.headers

    @property
    def json(self) -> dict[str, Any]:
        """The members of its body; none unless it is a JSON object."""
        return members(self.body)

    def saying(self, name: str, value: object) -> "Answer":
        """The same with one value changed, in its place."""
        return replace(self, body=orjson.dumps(self.json | {name: value}))


def members(body: bytes) -> dict[str, Any]:
    """The members of a JSON object; none if it is anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Those headers that are not about the connection."""
    kept = headers.copy()
    for name in _OF_THE_CONNECTION:
        kept.popall(name, None)
    return kept
