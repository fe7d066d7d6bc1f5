"""Whether a round of chaos kept every promise: a pure function of its history and its ledger."""

from collections.abc import Callable, Iterator, Sequence

from tests.fault.chaos import event_rules, key_rules, past_rules, time_rules, wallet_rules
from tests.fault.chaos.evidence import Evidence, evidence_of
from tests.fault.chaos.records import Anomaly, Ledger, Operation

Rule = Callable[[Evidence], Iterator[Anomaly]]

# One rule per promise. What a rule is about is in its name and its docstring.
RULES: tuple[Rule, ...] = (
    key_rules.lost,
    key_rules.lost_refusal,
    key_rules.doubled,
    key_rules.invented,
    key_rules.refused_but_applied,
    key_rules.applied_but_refused,
    key_rules.changed_replay,
    key_rules.unmarked_replay,
    key_rules.unsettled,
    key_rules.wrong_answer,
    key_rules.wrong_reversal,
    wallet_rules.foreign_change,
    wallet_rules.version_gap,
    wallet_rules.wrong_balance,
    wallet_rules.wrong_sum,
    wallet_rules.below_limit,
    time_rules.stale_read,
    time_rules.wrong_read,
    time_rules.wrong_order,
    time_rules.unexplained_refusal,
    time_rules.unexplained_excess,
    past_rules.decreasing_time,
    past_rules.changed_past,
    past_rules.other_answer,
    past_rules.wrong_window,
    past_rules.uneven_window,
    event_rules.invented_event,
    event_rules.wrong_event,
    event_rules.waiting_event,
)


def check(
    history: Sequence[Operation],
    ledger: Ledger,
    *,
    strict_reads: bool = False,
    events: bool = False,
    ordered_events: bool = True,
) -> list[Anomaly]:
    """Everything that must never be, rule by rule; empty if all is well.

    strict_reads: no plain read may be old, which holds only where Redis never failed. events: a
    round without a single delivery has lost its events, rather than not listened. ordered_events:
    off where a delivery may have been tried again, since later ones overtake it.
    """
    evidence = evidence_of(history, ledger)
    rules = list(RULES)
    if strict_reads:
        rules.append(time_rules.old_read)
    if events or ledger.deliveries:
        rules.append(event_rules.lost_event)
    if ordered_events:
        rules.append(event_rules.unordered_event)
    return [anomaly for rule in rules for anomaly in rule(evidence)]
