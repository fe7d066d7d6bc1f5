"""The state of a run in one process: a session for each ledger."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from loadtest.options import Options
from loadtest.proof.history import History
from loadtest.proof.ids import foreign_ids
from loadtest.proof.violations import FOREIGN_ID, Violation
from loadtest.world import World


@dataclass
class Session:
    """Shared by all users of one ledger in one process during one run.

    `ledger` is the name of the ledger, or empty if the run has only one.
    """

    options: Options
    world: World
    history: History
    log: Callable[[Violation], None]
    # Part of each key, so that keys of different processes differ.
    process: str
    ledger: str = ""
    api_key: str = ""
    # True when the worker has sent its history. No request may follow, because the audit would not
    # know of it.
    is_over: bool = False
    # The users of the ledger in this process, by persona.
    users: Counter[str] = field(default_factory=Counter)
    _keys: Any = field(default_factory=count)
    _number: int | None = field(init=False)

    def __post_init__(self) -> None:
        self._number = self.world.ledger_number

    def new_key(self) -> str:
        """A new Idempotency-Key, unique in the ledger. All ledgers have the same keys."""
        return f"{self.world.run}-{self.process}-{next(self._keys)}"

    def violated(self, kind: str, text: str) -> None:
        """Record a violation. The first ones of each kind are logged."""
        violation = Violation(kind, f"ledger {self.ledger}: {text}" if self.ledger else text)
        if self.history.violations.add(violation):
            self.log(violation)

    def check_ids(self, what: str, text: bytes) -> None:
        """Record a violation for each id of another ledger in an answer."""
        if self._number is not None:
            for id in foreign_ids(text, self._number):
                self.violated(FOREIGN_ID, f"{what} names {id}, which is of another ledger")


def session_for(persona: str, sessions: Sequence[Session]) -> Session:
    """The ledger of the next user: that with the fewest users of the persona, then of all."""
    session = min(sessions, key=lambda each: (each.users[persona], each.users.total()))
    session.users[persona] += 1
    return session
