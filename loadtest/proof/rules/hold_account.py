"""The values of a wallet's holds, as its statement gives them entry by entry."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from loadtest.proof.hold_record import (
    ADJUST,
    CAPTURE,
    CAPTURE_TRANSFER,
    CHANGES,
    CREATE,
    EXPIRE,
    RELEASE,
)
from loadtest.proof.record import Entry
from loadtest.proof.violations import (
    CAPTURED_ABOVE_HOLD,
    HOLD_ENDED_TWICE,
    INVENTED_HOLD_CHANGE,
    LOST_TRANSFER,
    WRONG_HELD,
    Violation,
)

_ENDED_BY = {RELEASE: "released", EXPIRE: "expired"}


class Step(NamedTuple):
    """An entry about a hold, and the values of the hold after it.

    The transfer of a capture is a later entry, so a capture has the values before it.
    """

    kind: str
    at_us: int
    amount_minor: int
    captured_minor: int
    released_minor: int


@dataclass
class HoldAccount:
    """A hold of which the statement has the creation. Money in minor units."""

    amount_minor: int = 0
    captured_minor: int = 0
    released_minor: int = 0
    # Empty while it may be active.
    status: str = ""
    steps: list[Step] = field(default_factory=list)

    @property
    def remaining_minor(self) -> int:
        return self.amount_minor - self.captured_minor - self.released_minor

    @property
    def parts(self) -> tuple[int, int, int]:
        return self.captured_minor, self.released_minor, self.remaining_minor

    def takes(self, kind: str, held_by_minor: int) -> bool:
        """Apply a change that is no capture; returns whether it changes what is held rightly."""
        if kind in (CREATE, ADJUST):
            self.amount_minor += held_by_minor
            return held_by_minor > 0 or kind == ADJUST
        remaining_minor = self.remaining_minor
        self.released_minor += remaining_minor
        self.status = _ENDED_BY[kind]
        return held_by_minor == -remaining_minor

    @property
    def statuses(self) -> set[str]:
        """The statuses that the hold may have."""
        if self.status:
            return {self.status}
        # A final capture of all that is left has the same entries as another capture.
        is_all_captured = self.steps[-1].kind == CAPTURE and not self.remaining_minor
        return {"active", "captured"} if is_all_captured else {"active"}


class WalletAccount:
    """`holds`: the holds that the entries create. `held_minor`: what the wallet holds."""

    def __init__(self, wallet: str, held_minor: int) -> None:
        self._wallet = wallet
        self.held_minor = held_minor
        self.holds: dict[str, HoldAccount] = {}
        # The last entry, if it is a capture whose transfer must follow, and the change of held.
        self._capture: tuple[Entry, int] | None = None

    def add(self, entry: Entry) -> Iterator[Violation]:
        """The next entry."""
        by_minor = entry.held_after_minor - self.held_minor
        self.held_minor = entry.held_after_minor
        is_paid = entry.kind == CAPTURE_TRANSFER and entry.amount_minor < 0
        if is_paid or self._capture is not None:
            yield from self._transfer(entry)
        if entry.kind in CHANGES and entry.hold is not None:
            yield from self._change(entry.hold, entry, by_minor)
        elif by_minor:
            yield self._wrong(entry, by_minor)

    def finish(self) -> Iterator[Violation]:
        """After the last entry."""
        if self._capture is not None:
            yield self._unpaid(self._capture[0])

    def _change(self, id: str, entry: Entry, by_minor: int) -> Iterator[Violation]:
        is_known = id in self.holds
        if is_known == (entry.kind == CREATE):
            # An expiry may be of a hold from before the run.
            if entry.kind != EXPIRE:
                order = "after" if is_known else "before"
                text = f"hold {id}: {entry.kind} at version {entry.version} {order} its creation"
                yield Violation(INVENTED_HOLD_CHANGE, f"wallet {self._wallet}: {text}")
            return
        hold = self.holds.setdefault(id, HoldAccount())
        if hold.status:
            text = f"hold {id} is {hold.status}, and {entry.kind} follows"
            yield Violation(HOLD_ENDED_TWICE, f"wallet {self._wallet}: {text}")
        if entry.kind == CAPTURE:
            self._capture = entry, by_minor
        elif not hold.takes(entry.kind, by_minor):
            yield self._wrong(entry, by_minor)
        amounts = (hold.amount_minor, hold.captured_minor, hold.released_minor)
        hold.steps.append(Step(entry.kind, entry.at_us, *amounts))
        if hold.remaining_minor < 0:
            text = f"hold {id}: {hold.captured_minor} of {hold.amount_minor} captured"
            yield Violation(CAPTURED_ABOVE_HOLD, f"wallet {self._wallet}: {text}")

    def _transfer(self, entry: Entry) -> Iterator[Violation]:
        """A capture is one entry about the hold and then the transfer."""
        before, self._capture = self._capture, None
        is_paid = entry.kind == CAPTURE_TRANSFER and entry.amount_minor < 0
        if before is None or not is_paid or before[0].hold != entry.hold:
            if before is not None:
                yield self._unpaid(before[0])
            if is_paid:
                text = f"capture {entry.transfer} does not follow the change of hold {entry.hold}"
                yield Violation(INVENTED_HOLD_CHANGE, f"wallet {self._wallet}: {text}")
            return
        hold = self.holds.get(entry.hold or "")
        if hold is None:
            return
        captured_minor, by_minor = -entry.amount_minor, before[1]
        if captured_minor > hold.remaining_minor:
            text = f"hold {entry.hold}: {captured_minor} captured of {hold.remaining_minor} left"
            yield Violation(CAPTURED_ABOVE_HOLD, f"wallet {self._wallet}: {text}")
        if by_minor == -captured_minor:
            hold.captured_minor += captured_minor
            return
        if by_minor != -hold.remaining_minor:
            yield self._wrong(before[0], by_minor)
        # A final capture gives back the rest.
        hold.captured_minor += captured_minor
        hold.released_minor += hold.remaining_minor
        hold.status = "captured"

    def _wrong(self, entry: Entry, by_minor: int) -> Violation:
        text = f"held changes by {by_minor} with {entry.kind} at version {entry.version}"
        return Violation(WRONG_HELD, f"wallet {self._wallet}: {text} (hold {entry.hold})")

    def _unpaid(self, entry: Entry) -> Violation:
        text = f"the capture at version {entry.version} has no transfer (hold {entry.hold})"
        return Violation(LOST_TRANSFER, f"wallet {self._wallet}: {text}")
