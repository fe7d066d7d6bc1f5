"""An answer of the service, and its meaning for the request and its idempotency key."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import orjson

JsonObject = dict[str, Any]
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")

# The header that marks a replay, in lower case.
REPLAYED = "idempotent-replayed"

# The codes of refusals between active wallets.
REFUSALS_OF_TRANSFERS = frozenset({"insufficient-funds"})
REFUSALS_OF_REVERSALS = frozenset(
    {"insufficient-funds", "reversal-exceeds-transfer", "not-reversible"}
)
REFUSALS_OF_BATCHES = frozenset({"batch-refused"})
REFUSALS_OF_HOLDS = frozenset(
    {
        *("amount-below-captured", "capture-exceeds-hold", "destination-mismatch"),
        *("destination-missing", "expiry-invalid", "hold-expired", "hold-not-active"),
        *("insufficient-funds", "too-many-holds"),
    }
)
REFUSALS = REFUSALS_OF_TRANSFERS | REFUSALS_OF_REVERSALS | REFUSALS_OF_BATCHES | REFUSALS_OF_HOLDS
# A decision is stored under its key, and a repetition gets the same bytes.
DECIDED = REFUSALS | {
    *("balance-out-of-range", "currency-mismatch", "hold-not-found", "same-wallet"),
    "transfer-not-found",
    *("wallet-closed", "wallet-frozen", "wallet-not-found"),
}
# Back-pressure: nothing happened, and the key is still free.
BACK_PRESSURE = frozenset({"mailbox-full", "rate-limited"})
IN_PROGRESS = "request-in-progress"
# These answers are given before the request is executed, so the key stays free. A later try can be
# applied, and an earlier try without an answer may have been applied.
TURNED_AWAY_STATUSES = frozenset({400, 401, 403, 413, 415, 429})
TURNED_AWAY_CODES = frozenset({"database-unavailable", "draining", "invalid-request", "overloaded"})


class Meaning(Enum):
    """The meaning of an answer for the key of its request."""

    APPLIED = "applied"
    REFUSED = "refused"
    TURNED_AWAY = "turned away"
    OPEN = "open"


def meaning_of(status: int, code: str) -> Meaning:
    """The meaning that the contract gives to an answer. Status 0: no answer."""
    if 200 <= status < 300:
        return Meaning.APPLIED
    if status in TURNED_AWAY_STATUSES or code in TURNED_AWAY_CODES:
        return Meaning.TURNED_AWAY
    if 400 <= status < 500 and code != IN_PROGRESS:
        return Meaning.REFUSED
    return Meaning.OPEN


def is_final(status: int, code: str) -> bool:
    """Whether this answer decides the request."""
    return meaning_of(status, code) in {Meaning.APPLIED, Meaning.REFUSED}


def is_stored(status: int, code: str) -> bool:
    """Whether this answer is stored under the key, so that every repetition gets it."""
    return meaning_of(status, code) is Meaning.APPLIED or code in DECIDED


def json_object(body: bytes) -> JsonObject | None:
    """The body as a JSON object; None if it is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def micros_of(time: object) -> int | None:
    """The microseconds since 1970 of a time in an answer; None if it is no time."""
    try:
        at = datetime.fromisoformat(str(time))
        return (at - _EPOCH) // timedelta(microseconds=1)
    except (TypeError, ValueError):
        return None


def code_of(body: bytes) -> str:
    """The code of a problem, or an empty text."""
    return str((json_object(body) or {}).get("code", ""))


@dataclass(frozen=True)
class Answer:
    """An HTTP response. Status 0: no response. `body` is empty if it is no JSON object."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    body: JsonObject

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], content: bytes) -> "Answer":
        """Decode the body. Header names are in lower case or case-insensitive."""
        return cls(status, headers, content, json_object(content) or {})

    @property
    def code(self) -> str:
        """The code of a problem document; empty for another document."""
        return str(self.body.get("code", ""))

    @property
    def is_final(self) -> bool:
        """Whether this answer is the stored outcome of the key."""
        return is_stored(self.status, self.code)

    @property
    def is_replay(self) -> bool:
        """Whether the service marked it as a replay."""
        return self.headers.get(REPLAYED) == "true"


NO_ANSWER = Answer(0, {}, b"", {})


def change_of(first: tuple[int, bytes], second: tuple[int, bytes]) -> str | None:
    """How two answers to one key (status and body) differ; None if they are equal."""
    if first[0] != second[0]:
        return f"{first[0]} became {second[0]}"
    return None if first[1] == second[1] else f"{_difference(first[1], second[1])} when repeated"


def _difference(first: bytes, second: bytes) -> str:
    """The first member that differs, or the first bytes."""
    one, two = json_object(first), json_object(second)
    if one is not None and two is not None:
        for name, value in one.items():
            if value != two.get(name):
                return f"{name} {value!r} became {two.get(name)!r}"
    return f"{first[:80]!r} became {second[:80]!r}"
