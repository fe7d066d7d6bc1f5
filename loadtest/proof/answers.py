"""An answer of the service, and its meaning for the request and its idempotency key."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

JsonObject = dict[str, Any]

# The header that marks a replay, in lower case.
REPLAYED = "idempotent-replayed"

# Refusals of transfers, reversals and batches between active wallets.
REFUSALS_OF_TRANSFERS = frozenset({"insufficient-funds"})
REFUSALS_OF_REVERSALS = frozenset(
    {"insufficient-funds", "reversal-exceeds-transfer", "not-reversible"}
)
REFUSALS_OF_BATCHES = frozenset({"batch-refused"})
REFUSALS = REFUSALS_OF_TRANSFERS | REFUSALS_OF_REVERSALS | REFUSALS_OF_BATCHES
# A decision is stored under its key, and a repetition gets the same bytes.
DECIDED = REFUSALS | {
    *("balance-out-of-range", "currency-mismatch", "same-wallet", "transfer-not-found"),
    *("wallet-closed", "wallet-frozen", "wallet-not-found"),
}
# Back-pressure: nothing happened, and the key is still free.
BACK_PRESSURE = frozenset({"mailbox-full", "rate-limited"})
IN_PROGRESS = "request-in-progress"
# These answers come before the execution, so the key stays free: a later try may still be applied,
# and an earlier one without an answer may have been applied.
TURNED_AWAY_STATUSES = frozenset({400, 401, 403, 413, 415, 429})
TURNED_AWAY_CODES = frozenset({"database-unavailable", "draining", "invalid-request", "overloaded"})


class Word(Enum):
    """The meaning of one answer for the request with its key."""

    APPLIED = "applied"
    REFUSED = "refused"
    TURNED_AWAY = "turned away"
    OPEN = "open"


def word_of(status: int, code: str) -> Word:
    """The contract's table of answers; status 0 is no answer at all."""
    if 200 <= status < 300:
        return Word.APPLIED
    if status in TURNED_AWAY_STATUSES or code in TURNED_AWAY_CODES:
        return Word.TURNED_AWAY
    if 400 <= status < 500 and code != IN_PROGRESS:
        return Word.REFUSED
    return Word.OPEN


def is_final(status: int, code: str) -> bool:
    """Whether this answer decides the request."""
    return word_of(status, code) in {Word.APPLIED, Word.REFUSED}


def is_stored(status: int, code: str) -> bool:
    """Whether this answer is kept under the key, for every repetition."""
    return word_of(status, code) is Word.APPLIED or code in DECIDED


def json_object(body: bytes) -> JsonObject | None:
    """The object in a body, if there is one."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def code_of(body: bytes) -> str:
    """The code of a problem, or an empty text."""
    return str((json_object(body) or {}).get("code", ""))


@dataclass(frozen=True)
class Answer:
    """An HTTP response; status 0 means that there was none. `body` is empty if it is no object."""

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
        """Whether the key has its outcome, so that every repetition gets this answer."""
        return is_stored(self.status, self.code)

    @property
    def is_replay(self) -> bool:
        """Whether the service marked it as a replay."""
        return self.headers.get(REPLAYED) == "true"


NO_ANSWER = Answer(0, {}, b"", {})


def change_of(first: tuple[int, bytes], second: tuple[int, bytes]) -> str | None:
    """How two answers to one key differ, each a status and a body; None if they do not."""
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
