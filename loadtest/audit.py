"""After the run: what the ledger says, through the API, against what was acknowledged."""

import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import orjson

from loadtest.api import Api, Reply, ServiceError, side_by_side
from loadtest.proof.answers import REFUSALS, REPLAYED
from loadtest.proof.bounded import StatementCheck, replay_violation
from loadtest.proof.complaints import batch_complaint, transfer_complaint
from loadtest.proof.history import ACKNOWLEDGED_MAX, Answered, History, Request
from loadtest.proof.record import Entry, State
from loadtest.proof.rules.books import sums
from loadtest.proof.violations import WRONG_ANSWER, Violation
from loadtest.world import World

_PAGE = 200


class Tell(Protocol):
    """Reports progress: what is being done, how much of it is done, out of how much."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


@dataclass
class Audit:
    """What was looked at. `complete` is false if the history was too long to keep all of it."""

    wallets: int = 0
    entries: int = 0
    acknowledged: int = 0
    settled: int = 0
    replays: int = 0
    seconds: float = 0.0
    complete: bool = True
    violations: list[Violation] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Without the violations, which the verdict has."""
        return {name: value for name, value in asdict(self).items() if name != "violations"}


def audit(api: Api, world: World, history: History, tell: Tell, *, only_sums: bool) -> Audit:
    """Settle what is open, repeat the samples, read the wallets, compare. Raises ServiceError."""
    started = time.monotonic()
    found = Audit(wallets=len(world.wallets))
    _settle(api, history, found, tell)
    _repeat(api, history.samples, found, tell)
    final = read_states(
        api, world.wallets, lambda done, total: tell("reading wallets", done, total)
    )
    found.violations += sums(world.start, final)
    found.acknowledged = history.acknowledged_total
    found.complete = not only_sums and history.acknowledged_total <= ACKNOWLEDGED_MAX
    if not only_sums:
        _compare(api, world, history, final=final, found=found, tell=tell)
    found.seconds = round(time.monotonic() - started, 1)
    return found


def read_states(api: Api, wallets: list[str], tell: Callable[[int, int], None]) -> dict[str, State]:
    """Balance and version of each, never old ones. Raises ServiceError."""

    def read(wallet_id: str) -> tuple[str, State]:
        # A statement comes from PostgreSQL, so no cache can be behind what it says.
        entries = expect(api.get(f"/wallets/{wallet_id}/statement?limit=1"), 200)["data"]
        version = entries[0]["version"] if entries else 0
        wallet = expect(api.get(f"/wallets/{wallet_id}?min_version={version}"), 200)
        return wallet_id, State(wallet["balance"], wallet["version"])

    return dict(side_by_side(read, wallets, lambda done: tell(done, len(wallets))))


def expect(reply: Reply, status: int) -> Any:
    """The body of an answer with this status. Raises ServiceError with what else came."""
    if reply.status != status:
        raise ServiceError(f"{reply.status} instead of {status}: {reply.body[:300].decode()}")
    return reply.json()


def _settle(api: Api, history: History, found: Audit, tell: Tell) -> None:
    """Repeat what had no answer: with its key that tells what became of it, or does it now."""
    requests = list(history.open.values())

    def repeat(request: Request) -> tuple[Request, Reply]:
        return request, api.post(request.path, request.body, request.key)

    replies = side_by_side(repeat, requests, lambda done: tell("asking again", done, len(requests)))
    for request, reply in replies:
        history.settled(request, reply.status, reply.body)
        found.settled += 1
        if reply.status not in (200, 201) and reply.code not in REFUSALS:
            text = f"{request.path} with key {request.key}: {reply.status} {reply.code}"
            found.violations.append(Violation(WRONG_ANSWER, text))
        else:
            found.violations += _told(history, request, reply)


def _told(history: History, request: Request, reply: Reply) -> list[Violation]:
    """Take the transfers of an answer, if they are those that were asked for."""
    complaint = None
    try:
        asked, answer = orjson.loads(request.body), reply.json()
        if reply.status == 201:
            if request.path == "/transfers":
                complaint = transfer_complaint(asked, answer)
            history.transferred(answer)
        elif reply.status == 200:
            atomic = asked["mode"] == "atomic"
            complaint = batch_complaint(asked["transfers"], answer["results"], atomic=atomic)
            for result in answer["results"]:
                if result["status"] == "posted":
                    history.transferred(result)
    except (KeyError, TypeError, ValueError, struct.error):
        complaint = repr(reply.body[:200])
    if complaint is None:
        return []
    return [Violation(WRONG_ANSWER, f"{request.path} with key {request.key}: {complaint}")]


def _repeat(api: Api, samples: list[Answered], found: Audit, tell: Tell) -> None:
    def repeat(sample: Answered) -> Violation | None:
        request = sample.request
        reply = api.post(request.path, request.body, request.key)
        return replay_violation(sample, reply.status, reply.body, reply.headers.get(REPLAYED, ""))

    violations = side_by_side(
        repeat, samples, lambda done: tell("repeating requests", done, len(samples))
    )
    found.replays += len(samples)
    found.violations += [violation for violation in violations if violation is not None]


def _compare(
    api: Api,
    world: World,
    history: History,
    *,
    final: dict[str, State],
    found: Audit,
    tell: Tell,
) -> None:
    """All statements, one after the other, with what was acknowledged."""
    check = StatementCheck(history if found.complete else None)

    def read(wallet_id: str) -> int:
        start, now = world.start[wallet_id], final[wallet_id]
        entries = _entries(api, wallet_id, start.version) if now.version != start.version else []
        check.wallet(wallet_id, start, now, entries[::-1])
        return len(entries)

    counts = side_by_side(
        read, world.wallets, lambda done: tell("reading statements", done, len(world.wallets))
    )
    found.entries = sum(counts)
    executed = _executed(api, history, tell) if check.has_unknown else set()
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


def _executed(api: Api, history: History, tell: Tell) -> set[str]:
    """Transfers under keys that were turned away: Nginx had asked another replica before that did
    it and died, which its client could not know."""
    keys = list(history.turned_away)

    def look_up(key: str) -> str:
        reply = api.get(f"/idempotency-keys/{key}")
        answer = reply.json().get("answer") if reply.status == 200 else None
        return str(answer.get("id", "")) if isinstance(answer, dict) else ""

    return set(side_by_side(look_up, keys, lambda done: tell("asking for keys", done, len(keys))))
