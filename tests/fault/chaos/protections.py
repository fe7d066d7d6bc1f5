"""The protections, each with the fault that causes damage without it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Wallets whose holds expire soon are not cached, so there are no holds.
_MANY_READS = {"reads": 0.5, "holds": 0.0, "hold_s_max": 3.0}
# The worker must hold undelivered events when it is killed. A new worker needs half a second.
_SLOW_RECEIVER = {"receiver_s": 0.05, "quiet_s": 1.5}


@dataclass(frozen=True)
class Protection:
    """A protection; `removed` describes the service without it.

    Without its layers a round with `fault` has a violation of one of the `kinds`. `load` changes
    the `RoundOptions` of that round.
    """

    name: str
    removed: str
    fault: str
    kinds: frozenset[str]
    # Empty if it has one layer, with the name of the protection.
    named_layers: frozenset[str] = frozenset()
    load: Mapping[str, float] = field(default_factory=dict)

    @property
    def layers(self) -> frozenset[str]:
        """The names of its layers in `removals`."""
        return self.named_layers or frozenset({self.name})


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROTECTIONS: Mapping[str, Protection] = {
    each.name: each
    for each in (
        Protection(
            "commit-before-answer",
            "The answer is sent even if the COMMIT failed.",
            "cut-in-commit",
            _words("lost-transfer"),
        ),
        Protection(
            "synchronous-commit",
            "PostgreSQL confirms a COMMIT before it is on the disk.",
            "kill-postgres",
            _words("lost-transfer"),
        ),
        Protection(
            "one-outcome",
            "The outcome of a key is not looked up, and a second outcome of a key is ignored.",
            "flush-redis",
            _words("doubled-transfer"),
            _words("look-up key-conflict"),
        ),
        Protection(
            "outcome-with-money",
            "Outcomes are written a moment after the COMMIT of the money.",
            "kill-replica",
            _words("lost-transfer doubled-transfer"),
            _words("outcome-in-transaction"),
        ),
        Protection(
            "stored-replay",
            "A repeated request gets the current version and balance, not those stored.",
            "flush-redis",
            _words("changed-replay"),
            _words("replay-as-stored"),
        ),
        Protection(
            "one-writer",
            "Wallets are read without a lock, and written without a check of their version.",
            "flush-redis",
            _words("version-gap wrong-balance"),
            _words("row-locks version-check"),
        ),
        Protection(
            "funds",
            "Neither `decide` nor the table checks the available money.",
            "flush-redis",
            _words("wrong-balance"),
            _words("funds-in-decide funds-in-table"),
        ),
        Protection(
            "reversal-cap",
            "The sum of earlier reversals of a transfer is not read.",
            "flush-redis",
            _words("wrong-answer"),
            _words("reversed-sums"),
        ),
        Protection(
            "expiry-first",
            "A group does not expire the due holds of its wallets before it decides.",
            "race-holds",
            _words("late-hold-change"),
        ),
        Protection(
            "hold-ends-once",
            "A hold is decided as it was before the lock, and written even if it has ended.",
            "race-holds",
            _words("hold-ended-twice wrong-hold wrong-held"),
        ),
        Protection(
            "frozen",
            "A group decides on a frozen wallet as if it were active.",
            "flush-redis",
            _words("moved-while-frozen"),
        ),
        Protection(
            "event-with-money",
            "Events are written a moment after the COMMIT of the money.",
            "kill-replica",
            _words("lost-event"),
            _words("event-in-transaction"),
        ),
        Protection(
            "publish-before-delete",
            "The relay deletes events before they are published and have deliveries.",
            "blackhole-worker-rabbitmq",
            _words("lost-event"),
        ),
        Protection(
            "deliver-before-record",
            "The notifier records a delivery as delivered before it makes the attempt.",
            "kill-worker",
            _words("lost-event"),
            load=_SLOW_RECEIVER,
        ),
        Protection(
            "min-version",
            "A read takes any snapshot and ignores its `min_version`.",
            "cut-replica-redis",
            _words("stale-read"),
            load=_MANY_READS,
        ),
        Protection(
            "settled-past",
            "A reader of an instant does not wait for writers.",
            "flush-redis",
            _words("changed-past wrong-window"),
            _words("wait-for-writers"),
        ),
        Protection(
            "never-decreasing-time",
            "A group has the time of the clock, even if one of its wallets has a later time.",
            "clock-jump-postgres",
            _words("decreasing-time changed-past wrong-window"),
        ),
        Protection(
            "newer-snapshot",
            "A snapshot replaces the one in Redis even if that is newer.",
            "slow-replica-redis",
            _words("old-read"),
            load=_MANY_READS,
        ),
        Protection(
            "refresh-before-answer",
            "Snapshots are refreshed a moment after the answer.",
            "slow-replica-redis",
            _words("old-read"),
            load=_MANY_READS,
        ),
    )
}


@dataclass(frozen=True)
class Alone:
    """`layers` that are enough while the other layers of their protections are removed.

    `without` are the removed layers. The only violations are of the `tolerated` kinds.
    """

    layers: frozenset[str]
    without: frozenset[str]
    tolerated: frozenset[str] = frozenset()


ALONE: Mapping[str, Alone] = {
    "first layers": Alone(
        _words("row-locks look-up funds-in-decide"),
        _words("version-check version-keys key-conflict funds-in-table"),
    ),
    # A conflict rolls the attempt back, and the next attempt looks the outcome up. A reader of the
    # past waits only for row locks, so without them its answers can change.
    "second layers": Alone(
        _words("version-check key-conflict"),
        _words("row-locks version-keys first-look-up"),
        _words("changed-past wrong-window"),
    ),
    # The check of the table refuses the whole group, so a 422 becomes a 500 without an outcome. It
    # checks the balance after the group; within the group the balance may be below the limit.
    "table": Alone(
        _words("funds-in-table"),
        _words("funds-in-decide"),
        _words("unsettled wrong-balance"),
    ),
}
