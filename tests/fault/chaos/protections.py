"""What keeps the promises, and which fault shows that each of it is needed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_MANY_READS = {"reads": 0.5, "hold_s_max": 3.0}
# So that the worker holds events that have not arrived; a new one takes half a second to begin.
_SLOW_RECEIVER = {"receiver_s": 0.05, "quiet_s": 1.5}


@dataclass(frozen=True)
class Protection:
    """`removed` is what the service does without it; `layers` are names of `removals`.

    With all of them removed a round of `fault` leaves an violation of one of these `kinds`. `load`
    is what has to be different in it: see `Pace`.
    """

    name: str
    removed: str
    layers: frozenset[str]
    fault: str
    kinds: frozenset[str]
    load: Mapping[str, float] = field(default_factory=dict)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROTECTIONS: Mapping[str, Protection] = {
    each.name: each
    for each in (
        Protection(
            "commit-before-answer",
            "The answer leaves whatever became of the COMMIT.",
            _words("commit-before-answer"),
            "cut-in-commit",
            _words("lost-transfer"),
        ),
        Protection(
            "synchronous-commit",
            "PostgreSQL confirms a COMMIT before it is on the disk.",
            _words("synchronous-commit"),
            "kill-postgres",
            _words("lost-transfer"),
        ),
        Protection(
            "one-outcome",
            "The outcome of a key is not looked up, and a key that has one already stops nobody.",
            _words("look-up key-conflict"),
            "flush-redis",
            _words("doubled-transfer"),
        ),
        Protection(
            "outcome-with-money",
            "Outcomes are written a moment after the COMMIT of the money.",
            _words("outcome-in-transaction"),
            "kill-replica",
            _words("lost-transfer doubled-transfer"),
        ),
        Protection(
            "stored-replay",
            "A repeated request is told the version and balance of now, not those stored.",
            _words("replay-as-stored"),
            "flush-redis",
            _words("changed-replay"),
        ),
        Protection(
            "one-writer",
            "Wallets are read without a lock, and written whatever their version is by then.",
            _words("row-locks version-check"),
            "flush-redis",
            _words("version-gap wrong-balance"),
        ),
        Protection(
            "funds",
            "Neither `decide` nor the table asks whether the money is there.",
            _words("funds-in-decide funds-in-table"),
            "flush-redis",
            _words("wrong-balance"),
        ),
        Protection(
            "reversal-cap",
            "What was given back of a transfer before is not read.",
            _words("reversed-sums"),
            "flush-redis",
            _words("wrong-answer"),
        ),
        Protection(
            "event-with-money",
            "Events are written a moment after the COMMIT of the money.",
            _words("event-in-transaction"),
            "kill-replica",
            _words("lost-event"),
        ),
        Protection(
            "publish-before-delete",
            "The relay deletes events before they are published and have deliveries.",
            _words("publish-before-delete"),
            "blackhole-worker-rabbitmq",
            _words("lost-event"),
        ),
        Protection(
            "deliver-before-record",
            "The notifier records a delivery as delivered before it makes the attempt.",
            _words("deliver-before-record"),
            "kill-worker",
            _words("lost-event"),
            _SLOW_RECEIVER,
        ),
        Protection(
            "min-version",
            "A read takes any snapshot, whatever its `min_version` says.",
            _words("min-version"),
            "cut-replica-redis",
            _words("stale-read"),
            _MANY_READS,
        ),
        Protection(
            "settled-past",
            "A reader of an instant waits for no writer.",
            _words("wait-for-writers"),
            "flush-redis",
            _words("changed-past wrong-window"),
        ),
        Protection(
            "never-decreasing-time",
            "A group has the time of the clock, also if one of its wallets has a later one.",
            _words("never-decreasing-time"),
            "clock-jump-postgres",
            _words("decreasing-time changed-past wrong-window"),
        ),
        Protection(
            "newer-snapshot",
            "A snapshot replaces whatever Redis has, newer ones too.",
            _words("newer-snapshot"),
            "slow-replica-redis",
            _words("old-read"),
            _MANY_READS,
        ),
        Protection(
            "refresh-before-answer",
            "Snapshots are refreshed a moment after the answer.",
            _words("refresh-before-answer"),
            "slow-replica-redis",
            _words("old-read"),
            _MANY_READS,
        ),
    )
}


@dataclass(frozen=True)
class Alone:
    """One layer of some protections is left; the others of `without` are removed.

    It still holds: no violation but of the `tolerated` kinds.
    """

    layers: frozenset[str]
    without: frozenset[str]
    tolerated: frozenset[str] = frozenset()


ALONE: Mapping[str, Alone] = {
    "first layers": Alone(
        _words("row-locks look-up funds-in-decide"),
        _words("version-check version-keys key-conflict funds-in-table"),
    ),
    # The conflict rolls the attempt back, and the next attempt looks the outcome up. A reader of
    # the past waits for row locks and for nothing else, so without them its answers can change.
    "second layers": Alone(
        _words("version-check key-conflict"),
        _words("row-locks version-keys first-look-up"),
        _words("changed-past wrong-window"),
    ),
    # The table can only refuse the whole, so what should be a 422 is a 500 that decides nothing.
    # And it sees a wallet as a group leaves it: in between it may have been below its limit.
    "table": Alone(
        _words("funds-in-table"),
        _words("funds-in-decide"),
        _words("unsettled wrong-balance"),
    ),
}
