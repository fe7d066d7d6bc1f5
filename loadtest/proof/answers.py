"""What an answer says of the request that it answers, and of its idempotency key."""

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
# What is decided is stored under its key, and a repetition gets the same bytes.
DECIDED = REFUSALS | {
    *("balance-out-of-range", "currency-mismatch", "same-wallet", "transfer-not-found"),
    *("wallet-closed", "wallet-frozen", "wallet-not-found"),
}
# Back-pressure: nothing happened, and the key is still free.
BACK_PRESSURE = frozenset({"mailbox-full", "rate-limited"})
IN_PROGRESS = "request-in-progress"
# Answered before anything is executed, so the key stays free: a later try may still be applied,
# and an earlier one that got no answer may have been.
TURNED_AWAY_STATUSES = frozenset({400, 401, 403, 413, 415, 429})
TURNED_AWAY_CODES = frozenset({"database-unavailable", "draining", "invalid-request", "overloaded"})


class Word(Enum):
    """What one answer says of the request with its key."""

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
    """Whether this answer says what became of the request."""
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
