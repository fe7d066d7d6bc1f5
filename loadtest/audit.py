"""After the run: the ledger, read through the API, compared with the acknowledged transfers."""

import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import orjson

from loadtest.api import Api
from loadtest.book_reading import read_book, read_states
from loadtest.progress import concurrently
from loadtest.proof.answers import REFUSALS, REPLAYED, Answer
from loadtest.proof.bounded import StatementCheck, replay_violation
from loadtest.proof.complaints import batch_complaint, hold_complaint, transfer_complaint
from loadtest.proof.history import Answered, History, Request
from loadtest.proof.hold_record import kind_of_path
from loadtest.proof.record import State
from loadtest.proof.rules.books import sums
from loadtest.proof.violations import WRONG_ANSWER, Violation
from loadtest.world import World

# The counts that are added up over ledgers.
_COUNTS = ("wallets", "entries", "acknowledged", "hold_changes", "holds", "settled", "replays")


@dataclass
class Audit:
    """The counts of an audit of one ledger or of several.

    complete: every transfer was compared, not only the sums. hold_changes: acknowledged changes of
    holds, captures included. holds: holds that were read.
    """

    wallets: int = 0
    entries: int = 0
    acknowledged: int = 0
    hold_changes: int = 0
    holds: int = 0
    settled: int = 0
    replays: int = 0
    seconds: float = 0.0
    complete: bool = True
    violations: list[Violation] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Without the violations, which the verdict contains."""
        return {name: value for name, value in asdict(self).items() if name != "violations"}


def total(audits: Sequence[Audit]) -> Audit:
    """The counts of all ledgers, without the violations."""
    found = Audit(complete=all(each.complete for each in audits))
    for name in _COUNTS:
        setattr(found, name, sum(getattr(each, name) for each in audits))
    found.seconds = round(sum(each.seconds for each in audits), 1)
    return found


def audit(api: Api, world: World, history: History, *, only_sums: bool) -> Audit:
    """Settle open requests, repeat samples, read the wallets, compare. Raises ServiceError."""
    started = time.monotonic()
    found = Audit(wallets=len(world.wallets))
    _settle(api, history, found)
    _repeat(api, history.samples, found)
    final = read_states(api, world.wallets)
    found.violations += sums(world.start, final)
    found.acknowledged = history.acknowledged_total
    found.hold_changes = history.hold_changes_total
    found.complete = not only_sums and history.is_complete
    if not only_sums:
        _compare(api, world, history, final=final, found=found)
    found.seconds = round(time.monotonic() - started, 1)
    return found


def _settle(api: Api, history: History, found: Audit) -> None:
    """Repeat the requests without a final answer, with their keys, to get their outcomes."""

    def repeat(request: Request) -> tuple[Request, Answer]:
        return request, api.post(request.path, request.body, request.key)

    answers = concurrently("repeating open requests", repeat, list(history.open.values()))
    for request, answer in answers:
        history.settled(request, answer.status, answer.content)
        found.settled += 1
        if answer.status not in (200, 201) and answer.code not in REFUSALS:
            text = f"{request.path} with key {request.key}: {answer.status} {answer.code}"
            found.violations.append(Violation(WRONG_ANSWER, text))
        else:
            found.violations += _record(history, request, answer)


def _record(history: History, request: Request, answer: Answer) -> list[Violation]:
    """Record the transfers of an answer; a violation if they are not the requested ones."""
    complaint = None
    try:
        asked = orjson.loads(request.body or b"{}")
        if kind_of_path(request.path) is not None:
            if answer.status < 300:
                complaint = hold_complaint(request.path, asked, answer.body)
                history.succeeded(request, answer.body)
        elif answer.status == 201:
            if request.path == "/transfers":
                complaint = transfer_complaint(asked, answer.body)
            history.transferred(answer.body)
        elif answer.status == 200:
            atomic, results = asked["mode"] == "atomic", answer.body["results"]
            complaint = batch_complaint(asked["transfers"], results, atomic=atomic)
            for result in results:
                if result["status"] == "posted":
                    history.transferred(result)
    except (KeyError, TypeError, ValueError, struct.error):
        complaint = repr(answer.content[:200])
    if complaint is None:
        return []
    return [Violation(WRONG_ANSWER, f"{request.path} with key {request.key}: {complaint}")]


def _repeat(api: Api, samples: list[Answered], found: Audit) -> None:
    def repeat(sample: Answered) -> Violation | None:
        request = sample.request
        answer = api.post(request.path, request.body, request.key)
        replayed = answer.headers.get(REPLAYED, "")
        return replay_violation(sample, answer.status, answer.content, replayed)

    found.violations += filter(None, concurrently("repeating requests", repeat, samples))
    found.replays += len(samples)


def _compare(
    api: Api, world: World, history: History, *, final: dict[str, State], found: Audit
) -> None:
    """Compare all statements with the acknowledged transfers."""
    check = StatementCheck(history if found.complete else None)

    def read(wallet_id: str) -> tuple[int, int]:
        start = world.start[wallet_id]
        book = read_book(api, wallet_id, start, final[wallet_id])
        check.wallet(wallet_id, start, book.state, book.entries, holds=book.holds)
        return len(book.entries), len(book.holds.known) if book.holds is not None else 0

    counts = concurrently("reading statements", read, world.wallets)
    found.entries, found.holds = map(sum, zip(*counts, strict=True))
    executed = _executed(api, history) if check.has_unknown else set()
    found.violations += check.finish(executed)


def _executed(api: Api, history: History) -> set[str]:
    """The transfers and the changed holds under keys that were turned away.

    A replica may execute a request and die before it answers. Nginx then sends the request to
    another replica, and the client gets only the answer of the second one.
    """

    def look_up(key: str) -> list[str]:
        answer = api.get(f"/idempotency-keys/{key}")
        stored = answer.body.get("answer") if answer.status == 200 else None
        if not isinstance(stored, dict):
            return []
        return [str(stored[name]) for name in ("id", "hold_id") if name in stored]

    ids = concurrently("reading outcomes of keys", look_up, list(history.turned_away))
    return set(chain.from_iterable(ids))
