"""What the users of one process share during a run, and an answer as they see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from loadtest.options import Options
from loadtest.proof.answers import REPLAYED, JsonObject, is_stored, json_object
from loadtest.proof.history import History
from loadtest.proof.violations import Violation
from loadtest.world import World


@dataclass
class Session:
    """What the users of one process share during one run."""

    options: Options
    world: World
    history: History
    log: Callable[[Violation], None]
    # Tells processes apart, so that no two make the same key.
    process: str
    _keys: Any = field(default_factory=count)

    def new_key(self) -> str:
        """An Idempotency-Key that nobody has used."""
        return f"{self.world.run}-{self.process}-{next(self._keys)}"

    def violated(self, kind: str, text: str) -> None:
        """The service did something that it must never do."""
        violation = Violation(kind, text)
        if self.history.violations.add(violation):
            self.log(violation)


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 is no answer at all."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    body: JsonObject

    @property
    def code(self) -> str:
        """The code of a problem."""
        return str(self.body.get("code", ""))

    @property
    def is_final(self) -> bool:
        """Whether the key has its outcome, so that every repetition gets this answer."""
        return is_stored(self.status, self.code)

    @property
    def is_replay(self) -> bool:
        """Whether it says that it is the answer to an earlier request."""
        return self.headers.get(REPLAYED) == "true"


NO_ANSWER = Answer(0, {}, b"", {})


def read_answer(response: Any) -> Answer:
    """From what Locust's client has, which is status 0 if nothing came back."""
    if response.status_code == 0:
        return NO_ANSWER
    content = bytes(response.content or b"")
    # geventhttpclient's headers do not care for case.
    return Answer(response.status_code, response.headers, content, json_object(content) or {})
