"""The state of a run in one process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from loadtest.options import Options
from loadtest.proof.history import History
from loadtest.proof.violations import Violation
from loadtest.world import World


@dataclass
class Session:
    """Shared by all users of one process during one run."""

    options: Options
    world: World
    history: History
    log: Callable[[Violation], None]
    # Part of each key, so that keys of different processes differ.
    process: str
    # True when the worker has sent its history. No request may follow, because the audit would not
    # know of it.
    is_over: bool = False
    _keys: Any = field(default_factory=count)

    def new_key(self) -> str:
        """A new Idempotency-Key, unique in the run."""
        return f"{self.world.run}-{self.process}-{next(self._keys)}"

    def violated(self, kind: str, text: str) -> None:
        """Record a violation. The first ones of each kind are logged."""
        violation = Violation(kind, text)
        if self.history.violations.add(violation):
            self.log(violation)
