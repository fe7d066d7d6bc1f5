"""Reads wallets, statements and holds through the API, as they are after a run."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import gevent

from loadtest.api import Api, ServiceError
from loadtest.progress import concurrently
from loadtest.proof.answers import Answer, JsonObject
from loadtest.proof.hold_record import CHANGES, HoldsRead, ShownHold, microseconds
from loadtest.proof.record import Entry, State

_PAGE = 200
# The service writes an expiry within 5 s. After this time the differences are violations.
_AGREE_WITHIN_S = 20.0
_AGREE_POLL_S = 0.25


class Book(NamedTuple):
    """A wallet with its entries since the start, oldest first. `holds`: None if it pays none."""

    state: State
    entries: list[Entry]
    holds: HoldsRead | None


def expect(answer: Answer, status: int) -> JsonObject:
    """The body of an answer that must have this status. Raises ServiceError."""
    if answer.status != status:
        text = answer.content[:300].decode()
        raise ServiceError(f"{answer.status} instead of {status}: {text}")
    return answer.body


def read_state(api: Api, wallet_id: str) -> State:
    """The current balance, version and held of a wallet. Raises ServiceError."""
    # A statement comes from PostgreSQL, so `min_version` makes the read skip an older snapshot.
    entries = expect(api.get(f"/wallets/{wallet_id}/statement?limit=1"), 200)["data"]
    version = entries[0]["version"] if entries else 0
    wallet = expect(api.get(f"/wallets/{wallet_id}?min_version={version}"), 200)
    return State(wallet["balance"], wallet["version"], wallet["held"])


def read_states(api: Api, wallets: list[str]) -> dict[str, State]:
    """The current state of each wallet. Raises ServiceError."""

    def read(wallet_id: str) -> tuple[str, State]:
        return wallet_id, read_state(api, wallet_id)

    return dict(concurrently("reading wallets", read, wallets))


def read_book(api: Api, wallet_id: str, start: State, now: State) -> Book:
    """A wallet with its statement and, if it pays holds, those. `now`: its state, read before.

    Holds expire also after the run, and GET leaves a hold that is due out before its expiry is
    written. So a wallet with holds is read until nothing changes and its parts agree.
    """
    entries = _entries(api, wallet_id, start.version) if now.version != start.version else []
    if not (start.held_minor or now.held_minor or any(each.kind in CHANGES for each in entries)):
        return Book(now, entries, None)
    deadline_s = time.monotonic() + _AGREE_WITHIN_S
    while True:
        before = read_state(api, wallet_id)
        entries = _entries(api, wallet_id, start.version)
        active = _active(api, wallet_id)
        named = {each.hold for each in entries if each.kind in CHANGES and each.hold}
        book = Book(before, entries, HoldsRead(_known(api, named), active))
        told_minor = entries[-1].held_after_minor if entries else start.held_minor
        agree = before.held_minor == told_minor == sum(hold.remaining_minor for hold in active)
        if agree and read_state(api, wallet_id) == before:
            return book
        if time.monotonic() > deadline_s:
            return book
        gevent.sleep(_AGREE_POLL_S)


def _known(api: Api, ids: Iterable[str]) -> dict[str, ShownHold | None]:
    found: dict[str, ShownHold | None] = {}
    for id in ids:
        answer = api.get(f"/holds/{id}")
        is_unknown = answer.code == "hold-not-found"
        found[id] = None if is_unknown else ShownHold.of(expect(answer, 200))
    return found


def _active(api: Api, wallet_id: str) -> list[ShownHold]:
    holds: list[ShownHold] = []
    path, cursor = f"/holds?wallet_id={wallet_id}&status=active&limit={_PAGE}", ""
    while True:
        page = expect(api.get(path + cursor), 200)
        holds += map(ShownHold.of, page["data"])
        if not page["has_more"]:
            return holds
        cursor = f"&cursor={page['next_cursor']}"


def _entries(api: Api, wallet_id: str, since: int) -> list[Entry]:
    """The entries of a wallet after this version, oldest first."""
    entries: list[Entry] = []
    path = f"/wallets/{wallet_id}/statement?limit={_PAGE}"
    cursor = ""
    while True:
        page = expect(api.get(path + cursor), 200)
        for row in page["data"]:
            if row["version"] <= since:
                return entries[::-1]
            entries.append(_entry(row))
        if not page["has_more"]:
            return entries[::-1]
        cursor = f"&cursor={page['next_cursor']}"


def _entry(row: JsonObject) -> Entry:
    return Entry(
        row["transfer_id"],
        row["version"],
        row["amount"],
        row["balance_after"],
        microseconds(row["created_at"]),
        row["kind"],
        row["hold_id"],
        row["held_after"],
    )
