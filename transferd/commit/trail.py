"""Where the time of one group goes: stages that follow each other."""

from collections.abc import Callable, Sequence

from transferd.commit.envelope import Envelope
from transferd.observability.facts import Stage


class Trail:
    """The stages of a group. A group has a handful, so they are always noted."""

    __slots__ = ("_clock", "_since", "envelopes", "retries", "stages", "started")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started = self._since = clock()
        self.stages: list[Stage] = []
        # Those that went into the transaction, and how often it had to be run again.
        self.envelopes: Sequence[Envelope] = ()
        self.retries = 0

    def __repr__(self) -> str:
        return f"<Trail of {', '.join(stage.name for stage in self.stages)}>"

    def begin(self) -> None:
        """The time since the last stage belongs to none."""
        self._since = self._clock()

    def end(self, name: str) -> None:
        """What went on since the last stage was this one."""
        now = self._clock()
        self.stages.append(Stage(name, self._since, now))
        self._since = now

    def retry(self) -> None:
        """An attempt has failed, at any stage, and is run again."""
        self.retries += 1
        self.end("failed attempt")
