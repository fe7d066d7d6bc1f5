"""Rules for events: each transfer is delivered at least once, in order and with its versions."""

from collections.abc import Iterator

from loadtest.proof.evidence import Evidence
from loadtest.proof.violations import Violation


def lost_event(evidence: Evidence) -> Iterator[Violation]:
    """Each transfer of the round was delivered at least once."""
    delivered = {delivery.transfer for delivery in evidence.ledger.deliveries}
    for id in evidence.rows:
        if id not in delivered:
            yield Violation("lost-event", f"no event of transfer {id} has arrived")


def invented_event(evidence: Evidence) -> Iterator[Violation]:
    """Each event has a transfer in the ledger, unless it is an event of an earlier round."""
    for delivery in evidence.ledger.deliveries:
        is_new = any(
            version > evidence.before(wallet).version
            for wallet, version in delivery.versions.items()
        )
        if delivery.transfer is not None and delivery.transfer not in evidence.rows and is_new:
            text = f"event {delivery.event_id} is about transfer {delivery.transfer}"
            yield Violation("invented-event", f"{text}, which is not in the ledger")


def wrong_event(evidence: Evidence) -> Iterator[Violation]:
    """Each delivery of an event has the versions that the ledger has."""
    for delivery in evidence.ledger.deliveries:
        row = evidence.rows.get(delivery.transfer) if delivery.transfer is not None else None
        if row is not None and dict(delivery.versions) != row.versions:
            text = f"event {delivery.event_id} of transfer {row.id} has {delivery.versions}"
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
