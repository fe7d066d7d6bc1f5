"""The violations in the full record of a round: a pure function."""

from collections.abc import Callable, Iterator, Sequence

from loadtest.proof.evidence import Evidence, evidence_of
from loadtest.proof.record import Ledger, Operation
from loadtest.proof.rules import (
    batches,
    books,
    events,
    frozen,
    holds,
    keys,
    ledgers,
    past,
    times,
    transfers,
)
from loadtest.proof.rules.events import lost_event, unordered_event
from loadtest.proof.rules.times import old_read
from loadtest.proof.violations import Violation

Rule = Callable[[Evidence], Iterator[Violation]]

# The docstring of a rule is the guarantee that it checks.
RULES: tuple[Rule, ...] = (
    transfers.unmatched,
    keys.lost_outcome,
    keys.doubled,
    keys.invented,
    keys.refused_but_applied,
    keys.applied_but_refused,
    keys.changed_replay,
    keys.unmarked_replay,
    keys.unsettled,
    keys.wrong_answer,
    keys.wrong_reversal,
    books.foreign_change,
    books.wrong_statement,
    books.wrong_sum,
    times.stale_read,
    times.wrong_read,
    times.wrong_order,
    times.unexplained_refusal,
    times.unexplained_excess,
    holds.unmatched_change,
    holds.wrong_hold_answer,
    holds.wrong_hold,
    holds.wrong_step,
    holds.late_change,
    holds.ended_twice,
    holds.unpaired_capture,
    holds.wrong_held,
    holds.unexplained_hold_refusal,
    batches.torn_batch,
    frozen.unmatched_status,
    frozen.moved_while_frozen,
    frozen.unexplained_frozen,
    past.decreasing_time,
    past.changed_past,
    past.changed_held,
    past.other_answer,
    past.wrong_window,
    past.uneven_window,
    events.invented_event,
    events.wrong_event,
    events.waiting_event,
    ledgers.foreign_id,
    ledgers.foreign_event,
)


def check(
    history: Sequence[Operation],
    ledger: Ledger,
    *,
    strict_reads: bool = False,
    events: bool = False,
    ordered_events: bool = True,
) -> list[Violation]:
    """The violations of all rules.

    strict_reads: no plain read may be stale; for rounds in which Redis never failed. events: the
    round had a receiver, so a round without any delivery has lost its events. ordered_events: off
    if deliveries may have been retried, because later deliveries overtake a retry.
    """
    evidence = evidence_of(history, ledger)
    rules = list(RULES)
    if strict_reads:
        rules.append(old_read)
    if events or ledger.deliveries:
        rules.append(lost_event)
    if ordered_events:
        rules.append(unordered_event)
    return [violation for rule in rules for violation in rule(evidence)]
