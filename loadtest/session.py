"""The state that the users of one process share during a run, and the answer to a request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson

from loadtest.options import Options
from loadtest.truth.audit import REPLAYED
from loadtest.truth.checks import REFUSALS
from loadtest.truth.history import History
from loadtest.truth.violations import Violation
from loadtest.world import World

JsonObject = dict[str, Any]

# Codes of outcomes that are stored under the idempotency key.
FINAL = REFUSALS | {"wallet-not-found", "transfer-not-found"}


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
        """Whether the outcome is stored, so that each repetition gets this answer."""
        return self.status in (200, 201) or self.code in FINAL

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
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = {}
    # The names of geventhttpclient's headers are case-insensitive.
    headers = response.headers
    return Answer(response.status_code, headers, content, body if isinstance(body, dict) else {})
