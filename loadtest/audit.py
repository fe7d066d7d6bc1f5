"""After the run: the ledger, read through the API, compared with the acknowledged transfers."""

import struct
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from loadtest.api import Api, ServiceError
from loadtest.progress import concurrently
from loadtest.proof.answers import REFUSALS, REPLAYED, Answer, JsonObject
from loadtest.proof.bounded import StatementCheck, replay_violation
from loadtest.proof.complaints import batch_complaint, transfer_complaint
from loadtest.proof.history import ACKNOWLEDGED_MAX, Answered, History, Request
from loadtest.proof.record import Entry, State
from loadtest.proof.rules.books import sums
from loadtest.proof.violations import WRONG_ANSWER, Violation
from loadtest.world import World

_PAGE = 200


@dataclass
class Audit:
    """The counts of an audit. `complete`: every transfer was compared, not only the sums."""

    wallets: int = 0
    entries: int = 0
    acknowledged: int = 0
    settled: int = 0
    replays: int = 0
    seconds: float = 0.0
    complete: bool = True
    violations: list[Violation] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Without the violations, which the verdict contains."""
        return {name: value for name, value in asdict(self).items() if name != "violations"}


def audit(api: Api, world: World, history: History, *, only_sums: bool) -> Audit:
    """Settle open requests, repeat samples, read the wallets, compare. Raises ServiceError."""
    started = time.monotonic()
    found = Audit(wallets=len(world.wallets))
    _settle(api, history, found)
    _repeat(api, history.samples, found)
    final = read_states(api, world.wallets)
    found.violations += sums(world.start, final)
    found.acknowledged = history.acknowledged_total
    found.complete = not only_sums and history.acknowledged_total <= ACKNOWLEDGED_MAX
    if not only_sums:
        _compare(api, world, history, final=final, found=found)
    found.seconds = round(time.monotonic() - started, 1)
    return found


def read_states(api: Api, wallets: list[str]) -> dict[str, State]:
    """The current balance and version of each wallet. Raises ServiceError."""

    def read(wallet_id: str) -> tuple[str, State]:
        # A statement comes from PostgreSQL, so `min_version` makes the read skip an older snapshot.
        entries = expect(api.get(f"/wallets/{wallet_id}/statement?limit=1"), 200)["data"]
        version = entries[0]["version"] if entries else 0
        wallet = expect(api.get(f"/wallets/{wallet_id}?min_version={version}"), 200)
        return wallet_id, State(wallet["balance"], wallet["version"])

    return dict(concurrently("reading wallets", read, wallets))


def expect(answer: Answer, status: int) -> JsonObject:
    """The body of an answer that must have this status. Raises ServiceError."""
    if answer.status != status:
        text = answer.content[:300].decode()
        raise ServiceError(f"{answer.status} instead of {status}: {text}")
    return answer.body


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
        asked = orjson.loads(request.body)
        if answer.status == 201:
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

    def read(wallet_id: str) -> int:
        start, now = world.start[wallet_id], final[wallet_id]
        entries = _entries(api, wallet_id, start.version) if now.version != start.version else []
        check.wallet(wallet_id, start, now, entries[::-1])
        return len(entries)

    found.entries = sum(concurrently("reading statements", read, world.wallets))
    executed = _executed(api, history) if check.has_unknown else set()
    found.violations += check.finish(executed)


def _entries(api: Api, wallet_id: str, since: int) -> list[Entry]:
    """The entries of a wallet after this version, newest first."""
    entries: list[Entry] = []
    path = f"/wallets/{wallet_id}/statement?limit={_PAGE}"
    cursor = ""
    while True:
        page = expect(api.get(path + cursor), 200)
        for row in page["data"]:
            if row["version"] <= since:
                return entries
            entry = Entry(row["transfer_id"], row["version"], row["amount"], row["balance_after"])
            entries.append(entry)
        if not page["has_more"]:
            return entries
        cursor = f"&cursor={page['next_cursor']}"


def _executed(api: Api, history: History) -> set[str]:
    """The transfers under keys that were turned away.

    A replica may execute a request and die before it answers. Nginx then sends the request to
    another replica, and the client gets only the answer of the second one.
    """

    def look_up(key: str) -> str:
        answer = api.get(f"/idempotency-keys/{key}")
        stored = answer.body.get("answer") if answer.status == 200 else None
        return str(stored.get("id", "")) if isinstance(stored, dict) else ""

    return set(concurrently("reading outcomes of keys", look_up, list(history.turned_away)))
