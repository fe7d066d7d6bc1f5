"""Rules for batches. The rules for transfers, holds and keys judge each item of a batch."""

from collections.abc import Iterator

from loadtest.proof.batches import key_of_item
from loadtest.proof.evidence import Evidence
from loadtest.proof.record import Kind
from loadtest.proof.violations import Violation


def torn_batch(evidence: Evidence) -> Iterator[Violation]:
    """A batch is one transaction: its transfers have one time, and an atomic one posts all."""
    for key, case in evidence.cases.items():
        if case.asked.kind is not Kind.BATCH or case.success is None:
            continue
        keys = [key_of_item(key, number) for number in range(len(case.asked.items))]
        ids = [id for each in keys for id in evidence.owned[each]]
        rows = [evidence.rows[id] for id in ids if id in evidence.rows]
        if case.asked.atomic and len(rows) != len(keys):
            yield Violation("torn-batch", f"key {key} posted {len(rows)} of {len(keys)} transfers")
        times_us = {row.at_us for row in rows}
        if len(times_us) > 1:
            yield Violation("torn-batch", f"key {key} has transfers of {len(times_us)} times")
