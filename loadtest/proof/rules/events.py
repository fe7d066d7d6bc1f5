"""Rules for events: those of transfers and holds arrive at least once, in order and correct."""

from collections.abc import Iterator

from loadtest.proof.evidence import Evidence
from loadtest.proof.record import ChangeRow
from loadtest.proof.violations import Violation

# The type of the event of each kind of change of a hold.
EVENT_TYPES = {
    "hold_create": "hold.created",
    "hold_adjust": "hold.adjusted",
    "hold_capture": "hold.captured",
    "hold_release": "hold.released",
    "hold_expire": "hold.expired",
}


def lost_event(evidence: Evidence) -> Iterator[Violation]:
    """Each transfer and each change of a hold was delivered at least once."""
    delivered = {delivery.transfer for delivery in evidence.ledger.deliveries}
    for id in evidence.rows:
        if id not in delivered:
            yield Violation("lost-event", f"no event of transfer {id} has arrived")
    arrived = {delivery.event_id for delivery in evidence.ledger.deliveries}
    for event_id, change in _changes(evidence).items():
        if event_id not in arrived:
            yield Violation("lost-event", f"no event of {change.kind} {event_id} has arrived")


def invented_event(evidence: Evidence) -> Iterator[Violation]:
    """Each event has a transfer or a change in the ledger, unless it is of an earlier round."""
    changes = _changes(evidence)
    for delivery in evidence.ledger.deliveries:
        is_new = any(
            version > evidence.before(wallet).version
            for wallet, version in delivery.versions.items()
        )
        if delivery.transfer is not None and delivery.transfer not in evidence.rows and is_new:
            text = f"event {delivery.event_id} is about transfer {delivery.transfer}"
            yield Violation("invented-event", f"{text}, which is not in the ledger")
        if delivery.hold is not None and delivery.event_id not in changes and is_new:
            text = f"event {delivery.event_id} is about hold {delivery.hold.hold}"
            yield Violation("invented-event", f"{text}, which did not change then")


def wrong_event(evidence: Evidence) -> Iterator[Violation]:
    """Each delivery of an event has the versions, and the hold, that the ledger has."""
    changes = _changes(evidence)
    for delivery in evidence.ledger.deliveries:
        row = evidence.rows.get(delivery.transfer) if delivery.transfer is not None else None
        if row is not None and dict(delivery.versions) != row.versions:
            text = f"event {delivery.event_id} of transfer {row.id} has {delivery.versions}"
            yield Violation("wrong-event", text)
        change = changes.get(delivery.event_id)
        if change is not None and (delivery.kind, delivery.hold, dict(delivery.versions)) != (
            EVENT_TYPES[change.kind],
            change.hold,
            {change.wallet: change.version},
        ):
            text = f"event {delivery.event_id} is {delivery}, the ledger has {change}"
            yield Violation("wrong-event", text)


def unordered_event(evidence: Evidence) -> Iterator[Violation]:
    """First deliveries of a wallet's events arrive in the order of its versions."""
    arrived: set[str] = set()
    highest: dict[str, int] = {}
    for delivery in sorted(evidence.ledger.deliveries, key=lambda delivery: delivery.number):
        if delivery.event_id in arrived:
            continue
        arrived.add(delivery.event_id)
        for wallet, version in delivery.versions.items():
            if version < highest.get(wallet, version):
                text = f"version {version} after {highest[wallet]}"
                yield Violation("unordered-event", f"wallet {wallet}: {text} ({delivery.event_id})")
            highest[wallet] = max(version, highest.get(wallet, version))


def waiting_event(evidence: Evidence) -> Iterator[Violation]:
    """No event is in the outbox at the end."""
    if evidence.ledger.waiting_events > 0:
        yield Violation("waiting-event", f"{evidence.ledger.waiting_events} events are left")


def _changes(evidence: Evidence) -> dict[str, ChangeRow]:
    """The changes of holds by the ids of their events."""
    return {row.event_id: row for life in evidence.lives.values() for row in life}
