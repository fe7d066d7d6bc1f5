"""The consecutive stages of one group, with their times."""

from collections.abc import Callable, Sequence

from transferd.commit.envelope import Envelope
from transferd.observability.facts import Stage


class Trail:
    """The stages of one group. They are recorded even without tracing: a group has only a few."""

    __slots__ = ("_clock", "_since", "envelopes", "retries", "stages", "started")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started = self._since = clock()
        self.stages: list[Stage] = []
        # The envelopes that went into the transaction.
        self.envelopes: Sequence[Envelope] = ()
        # The number of attempts that failed.
        self.retries = 0

    def __repr__(self) -> str:
        return f"<Trail of {', '.join(stage.name for stage in self.stages)}>"

    def begin(self) -> None:
        """Begin a stage now. The time since the last stage belongs to no stage."""
        self._since = self._clock()

    def end(self, name: str) -> None:
        """End the stage `name`, which began at the end of the last stage or at `begin`."""
        now = self._clock()
        self.stages.append(Stage(name, self._since, now))
        self._since = now

    def retry(self) -> None:
        """Record that an attempt has failed, at any stage, and that another one may follow."""
        self.retries += 1
        self.end("failed attempt")
