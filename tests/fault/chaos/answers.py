"""What the answers to one key say, each alone and all together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import orjson

from tests.fault.chaos.records import Operation, Try

JsonObject = dict[str, Any]

IN_PROGRESS = "request-in-progress"
# What `decide` refuses is stored under its key, and a repetition gets the same bytes.
DECIDED = frozenset(
    {
        "balance-out-of-range",
        "currency-mismatch",
        "insufficient-funds",
        "not-reversible",
        "reversal-exceeds-transfer",
        "same-wallet",
        "transfer-not-found",
        "wallet-closed",
        "wallet-frozen",
        "wallet-not-found",
    }
)
# Answered before anything is executed, so the key stays free: a later try may still be applied,
# and an earlier one that got no answer may have been.
TURNED_AWAY_STATUSES = frozenset({400, 401, 403, 413, 415, 429})
TURNED_AWAY_CODES = frozenset({"database-unavailable", "draining", "invalid-request", "overloaded"})


class Word(Enum):
    """What one answer says of the transfer that was asked for."""

    APPLIED = "applied"
    REFUSED = "refused"
    TURNED_AWAY = "turned away"
    OPEN = "open"


def word_of(each: Try) -> Word:
    """The contract's table of answers."""
    if 200 <= each.status < 300:
        return Word.APPLIED
    if each.status in TURNED_AWAY_STATUSES or each.code in TURNED_AWAY_CODES:
        return Word.TURNED_AWAY
    if 400 <= each.status < 500 and each.code != IN_PROGRESS:
        return Word.REFUSED
    return Word.OPEN


@dataclass(frozen=True)
class Case:
    """All that was asked and answered under one key."""

    asked: Operation
    # In the order in which they ended.
    tries: Sequence[Try]
    words: Sequence[Word]
    # The different bodies of its successes; None is one that is no transfer.
    bodies: Sequence[JsonObject | None]

    @property
    def key(self) -> str:
        return self.asked.key

    @cached_property
    def began_s(self) -> float:
        """Before this nothing can have come of it."""
        return min((each.began_s for each in self.tries), default=0.0)

    @cached_property
    def told(self) -> list[str]:
        """The transfers that its successes name; one, if all is well."""
        return list(dict.fromkeys(body["id"] for body in self.bodies if body is not None))

    @cached_property
    def success(self) -> Try | None:
        """The first answer that says it was applied."""
        return self._first(Word.APPLIED)

    @cached_property
    def refusal(self) -> Try | None:
        """The first answer that says it was refused."""
        return self._first(Word.REFUSED)

    @property
    def nothing_happened(self) -> bool:
        """Whether no answer, and no lack of one, leaves room for a transfer."""
        return self.success is None and Word.OPEN not in self.words

    @property
    def is_settled(self) -> bool:
        """Whether there is an answer after which nothing may change."""
        return self.success is not None or self.refusal is not None

    def _first(self, word: Word) -> Try | None:
        return self.tries[self.words.index(word)] if word in self.words else None


def is_stored(each: Try) -> bool:
    """Whether this answer is kept under the key, for every repetition."""
    return word_of(each) is Word.APPLIED or each.code in DECIDED


def json_object(body: bytes) -> JsonObject | None:
    """The object in a body, if there is one."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def cases_of(history: Iterable[Operation]) -> dict[str, Case]:
    """What moves money, by key. Operations that share a key are one, as the first asked for it."""
    by_key: dict[str, list[Operation]] = {}
    for operation in history:
        if operation.moves_money:
            by_key.setdefault(operation.key, []).append(operation)
    return {key: _case(operations) for key, operations in by_key.items()}


def _case(operations: Sequence[Operation]) -> Case:
    tries = sorted((each for one in operations for each in one.tries), key=lambda t: t.ended_s)
    words = [word_of(each) for each in tries]
    successes = dict.fromkeys(
        each.body for each, word in zip(tries, words, strict=True) if word is Word.APPLIED
    )
    return Case(operations[0], tries, words, [_transfer(body) for body in successes])


def _transfer(body: bytes) -> JsonObject | None:
    document = json_object(body)
    return document if document is not None and isinstance(document.get("id"), str) else None
