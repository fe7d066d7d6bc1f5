"""Rules for holds: statements, holds and the answers about them agree.

A statement has every change of the holds that its wallet pays, so it gives the final values of each
hold and of what the wallet holds.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from loadtest.proof.hold_record import (
    ADJUST,
    CAPTURE,
    EXPIRE,
    HoldChange,
    HoldsRead,
    ShownHold,
)
from loadtest.proof.record import Entry, State
from loadtest.proof.rules.hold_account import HoldAccount, WalletAccount
from loadtest.proof.violations import (
    HOLD_ENDED_TWICE,
    INVENTED_HOLD_CHANGE,
    LOST_HOLD_CHANGE,
    WRONG_EXPIRY,
    WRONG_HELD,
    WRONG_HOLD,
    Violation,
)

# A change as an answer and an entry both have it: kind and time.
_Mark = tuple[str, int]


class HoldMatching:
    """Compares answers about holds with statements, one wallet after the other.

    acknowledged: the changes of each hold; None if they were not kept. `unknown`: holds with
    changes that are in no answer.
    """

    def __init__(self, acknowledged: Mapping[str, Sequence[HoldChange]] | None) -> None:
        self._acknowledged = acknowledged
        # Known only if no answer to a request that was executed is missing.
        self._doubts: dict[str, list[Violation]] = {}
        self._seen: set[str] = set()

    @property
    def unknown(self) -> Collection[str]:
        return self._doubts

    def payer(
        self, wallet: str, start: State, final: State, entries: Iterable[Entry], holds: HoldsRead
    ) -> Iterator[Violation]:
        """Check the holds of one wallet. `entries`: since the start, oldest first."""
        account = WalletAccount(wallet, start.held_minor)
        for entry in entries:
            yield from account.add(entry)
        yield from account.finish()
        yield from _held(wallet, account.held_minor, final, holds)
        for id, hold in account.holds.items():
            self._seen.add(id)
            yield from self._hold(wallet, id, hold, holds.known.get(id))

    def finish(self, explained: Collection[str] = ()) -> Iterator[Violation]:
        """The violations that are known after all wallets.

        explained: holds that were changed although the client got no answer.
        """
        for id, doubts in self._doubts.items():
            if id not in explained:
                yield from doubts
        for id in self._acknowledged or ():
            if id not in self._seen:
                text = f"hold {id} was acknowledged and is in no statement"
                yield Violation(LOST_HOLD_CHANGE, text)

    def _hold(
        self, wallet: str, id: str, account: HoldAccount, state: ShownHold | None
    ) -> Iterator[Violation]:
        yield from _state(wallet, id, account, state)
        if self._acknowledged is None:
            return
        changes = self._acknowledged.get(id, ())
        yield from _lost(id, account, changes)
        doubts = [*_invented(id, account, changes)]
        if state is not None:
            yield from _ends(state, changes)
            yield from _expiry(state, account, changes)
            doubts += _values(state, changes)
        if doubts:
            self._doubts[id] = doubts


def _held(wallet: str, told_minor: int, final: State, holds: HoldsRead) -> Iterator[Violation]:
    """The wallet holds what its statement says, and what its active holds reserve."""
    if final.held_minor != told_minor:
        text = f"wallet {wallet} holds {final.held_minor}, its statement says {told_minor}"
        yield Violation(WRONG_HELD, text)
    reserved_minor = sum(hold.remaining_minor for hold in holds.active)
    if final.held_minor != reserved_minor:
        text = f"wallet {wallet} holds {final.held_minor}, its active holds {reserved_minor}"
        yield Violation(WRONG_HELD, text)
    listed = {hold.id: hold for hold in holds.active}
    for id, state in holds.known.items():
        if state is not None and listed.get(id) != (state if state.status == "active" else None):
            text = f"hold {id} is {state}, in the list of active holds {listed.get(id)}"
            yield Violation(WRONG_HOLD, text)


def _state(
    wallet: str, id: str, account: HoldAccount, state: ShownHold | None
) -> Iterator[Violation]:
    """The hold is what its entries make of it, and its parts add up to its amount."""
    if state is None:
        yield Violation(WRONG_HOLD, f"hold {id} is in the statement and cannot be read")
        return
    parts = (state.captured_minor, state.released_minor, state.remaining_minor)
    if state.amount_minor != sum(parts) or min(parts) < 0:
        yield Violation(WRONG_HOLD, f"hold {id} does not add up: {state}")
    expected = (wallet, account.amount_minor, *account.parts)
    if (state.wallet, state.amount_minor, *parts) != expected:
        yield Violation(WRONG_HOLD, f"hold {id} is {state}, its statement says {account}")
    if state.status not in account.statuses:
        text = f"hold {id} is {state.status}, its last entry is {account.steps[-1].kind}"
        yield Violation(WRONG_HOLD, text)


def _marks(account: HoldAccount) -> Counter[_Mark]:
    return Counter((step.kind, step.at_us) for step in account.steps)


def _lost(id: str, account: HoldAccount, changes: Sequence[HoldChange]) -> Iterator[Violation]:
    """Each acknowledged change has an entry, after which the hold has the answered values."""
    times_us = {step.at_us for step in account.steps}
    answered = Counter((change.kind, change.at_us) for change in changes)
    for (kind, at_us), count in (answered - _marks(account)).items():
        # An adjustment that changes nothing has no entry; its answer has the time of the change
        # before it.
        if kind != ADJUST or at_us not in times_us:
            text = f"hold {id}: {count} {kind} at {at_us} acknowledged and not in the statement"
            yield Violation(LOST_HOLD_CHANGE, text)
    for change in changes:
        # Several changes of one group have the same time.
        values = {
            step[2:] for step in account.steps if step[:2] == (change.kind, change.at_us)
        } or {change[4:7]}
        if change.kind != CAPTURE and change[4:7] not in values:
            text = f"hold {id} is answered as {change}, the statement has {values}"
            yield Violation(WRONG_HOLD, text)


def _invented(id: str, account: HoldAccount, changes: Sequence[HoldChange]) -> Iterator[Violation]:
    """Each entry has an answer. Nothing asks for an expiry."""
    answered = Counter((change.kind, change.at_us) for change in changes)
    for (kind, at_us), count in (_marks(account) - answered).items():
        if kind != EXPIRE:
            text = f"hold {id}: {count} {kind} at {at_us} in the statement and in no answer"
            yield Violation(INVENTED_HOLD_CHANGE, text)


def _ends(state: ShownHold, changes: Sequence[HoldChange]) -> Iterator[Violation]:
    """At most one answer ends the hold, and its status names that end."""
    ends = [change for change in changes if change.ends]
    if len(ends) > 1:
        text = f"hold {state.id}: {len(ends)} answers ended it"
        yield Violation(HOLD_ENDED_TWICE, text)
    for end in ends:
        if state.status != ("captured" if end.kind == CAPTURE else "released"):
            text = f"hold {state.id} is {state.status} after the acknowledged {end.kind}"
            yield Violation(WRONG_HOLD, text)


def _expiry(
    state: ShownHold, account: HoldAccount, changes: Sequence[HoldChange]
) -> Iterator[Violation]:
    """No change is later than the expiry, and no expiry is early."""
    latest_us = max((state.expires_us, *(change.expires_us for change in changes)))
    for kind, at_us, *_ in account.steps:
        if kind == EXPIRE and at_us < state.expires_us:
            text = f"hold {state.id} expired at {at_us}, before {state.expires_us}"
            yield Violation(WRONG_EXPIRY, text)
        elif kind != EXPIRE and at_us >= latest_us:
            text = f"hold {state.id}: {kind} at {at_us}, and it expired at {latest_us}"
            yield Violation(WRONG_EXPIRY, text)


def _values(state: ShownHold, changes: Sequence[HoldChange]) -> Iterator[Violation]:
    """The hold has the amount and expiry of its last answers, their captures, and their end."""
    views = [change for change in changes if change.kind != CAPTURE]
    last_us = max((change.at_us for change in views), default=0)
    # Two changes of one group have the same time, so their order is unknown.
    last = {(each.amount_minor, each.expires_us) for each in views if each.at_us == last_us}
    if last and (state.amount_minor, state.expires_us) not in last:
        yield Violation(WRONG_HOLD, f"hold {state.id} is {state}, last answered as {last}")
    captured_minor = sum(change.amount_minor for change in changes if change.kind == CAPTURE)
    if state.captured_minor != captured_minor:
        text = f"hold {state.id} is {state}, its answered captures are {captured_minor}"
        yield Violation(WRONG_HOLD, text)
    if state.status in ("captured", "released") and not any(each.ends for each in changes):
        text = f"hold {state.id} is {state.status}, and no answer ended it"
        yield Violation(WRONG_HOLD, text)
