"""Rules for several ledgers: nothing of one of them reaches a client or a webhook of another."""

from collections.abc import Iterator

from loadtest.proof.answers import json_object
from loadtest.proof.evidence import Evidence
from loadtest.proof.ids import foreign_ids
from loadtest.proof.record import Delivery
from loadtest.proof.violations import FOREIGN_ID, Violation


def foreign_id(evidence: Evidence) -> Iterator[Violation]:
    """No answer, list, event or row of the ledger names an id of another ledger."""
    for what, text in _texts(evidence):
        for id in foreign_ids(text, evidence.ledger.number):
            yield Violation(FOREIGN_ID, f"{what} names {id}, which is of another ledger")


def foreign_event(evidence: Evidence) -> Iterator[Violation]:
    """An event that names its ledger names the ledger of the webhook."""
    for delivery in evidence.ledger.deliveries:
        name = (json_object(delivery.body) or {}).get("ledger", evidence.ledger.name)
        if name != evidence.ledger.name:
            yield Violation("foreign-event", f"event {delivery.event_id} is of the ledger {name}")


def _texts(evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    """All texts in which an id can be, with a name for each."""
    for case in evidence.cases.values():
        for each in case.tries:
            yield f"the answer to key {case.key}", each.body
    for read in (*evidence.reads, *evidence.past):
        for each in read.tries:
            yield f"an answer about wallet {read.wallet}", each.body
    for text in evidence.ledger.listed:
        yield "a list", text
    for delivery in evidence.ledger.deliveries:
        yield f"event {delivery.event_id}", delivery.body + _ids_of(delivery)
    ledger = evidence.ledger
    for row in (*ledger.wallets, *ledger.transfers, *ledger.holds, *ledger.changes):
        yield f"a {type(row).__name__}", repr(row).encode()


def _ids_of(delivery: Delivery) -> bytes:
    hold = delivery.hold.hold if delivery.hold is not None else ""
    ids = (delivery.event_id, delivery.transfer or "", hold, *delivery.versions)
    return "".join(f" {id}" for id in ids).encode()
