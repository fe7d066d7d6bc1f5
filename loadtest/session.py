"""The state that the users of one process share during a run, and the answer to a request."""

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
    """Shared by all users of one process during one run."""

    options: Options
    world: World
    history: History
    log: Callable[[Violation], None]
    # Part of each key, so that keys of different processes differ.
    process: str
    # The worker has sent its history: the audit would not know of a later request.
    is_over: bool = False
    _keys: Any = field(default_factory=count)

    def new_key(self) -> str:
        """A new Idempotency-Key, unique in the run."""
        return f"{self.world.run}-{self.process}-{next(self._keys)}"

    def violated(self, kind: str, text: str) -> None:
        """Record that the service broke an invariant; log it if it is new."""
        violation = Violation(kind, text)
        if self.history.violations.add(violation):
            self.log(violation)


@dataclass(frozen=True)
class Answer:
    """An HTTP response; status 0 means that there was none."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    body: JsonObject

    @property
    def code(self) -> str:
        """The code of the problem document; empty if the body is another document."""
        return str(self.body.get("code", ""))

    @property
    def is_final(self) -> bool:
        """Whether the key has its outcome, so that every repetition gets this answer."""
        return is_stored(self.status, self.code)

    @property
    def is_replay(self) -> bool:
        """Whether the service marked it as a replay."""
        return self.headers.get(REPLAYED) == "true"


NO_ANSWER = Answer(0, {}, b"", {})


def read_answer(response: Any) -> Answer:
    """Convert a response of Locust's client; its status is 0 if there was no response."""
    if response.status_code == 0:
        return NO_ANSWER
    content = bytes(response.content or b"")
    # The names of geventhttpclient's headers are case-insensitive.
    return Answer(response.status_code, response.headers, content, json_object(content) or {})
