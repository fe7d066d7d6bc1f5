"""The items of batches as requests of their own, so that every rule judges them as well."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import orjson

from loadtest.proof.answers import Meaning, json_object
from loadtest.proof.record import Kind, Ledger, Operation, Try

Outcome = tuple[int, str | None]


def key_of_item(batch: str, number: int) -> str:
    """The key by which the rules know an item. The service does not know it."""
    return f"{batch}/{number}"


def with_items(history: Sequence[Operation], ledger: Ledger) -> tuple[Sequence[Operation], Ledger]:
    """The history and the ledger with an operation and an outcome for each item of each batch.

    An item has the tries of its batch, with its own part of each answer. It has a stored outcome if
    its batch has one.
    """
    batches = [each for each in history if each.kind is Kind.BATCH]
    if not batches:
        return history, ledger
    items: list[Operation] = []
    outcomes = dict(ledger.outcomes)
    for batch in batches:
        for number, item in enumerate(batch.items):
            tries = [_part(each, number) for each in batch.tries]
            key = key_of_item(batch.key, number)
            items.append(replace(item, key=key, tries=tries))
            outcomes.update((key, each) for each in _outcome(batch, tries, ledger))
    return [*history, *items], replace(ledger, outcomes=outcomes)


def _part(one: Try, number: int) -> Try:
    """The part of an answer that is about one item."""
    body = json_object(one.body) or {}
    if one.meaning is Meaning.APPLIED:
        results = body.get("results")
        result = results[number] if isinstance(results, list) and number < len(results) else {}
        if "code" in result:
            code = str(result["code"])
            return replace(one, status=result["status"], code=code, body=orjson.dumps(result))
        # The answer to a payment has 201. A result that is missing is an answer without an id.
        status = 201 if one.status == 200 else one.status
        return replace(one, status=status, body=orjson.dumps(result))
    if one.code == "batch-refused" and body.get("index") == number:
        refusal = body.get("refusal", {})
        return replace(one, code=str(refusal.get("code")), body=orjson.dumps(refusal))
    return one


def _outcome(batch: Operation, tries: Sequence[Try], ledger: Ledger) -> Iterator[Outcome]:
    """The outcome of an item; none if its batch has none."""
    stored = ledger.outcomes.get(batch.key)
    if stored is None:
        return
    status, _ = stored
    if 200 <= status < 300:
        # The ids are in the answer; the ledger compares them with the transfers.
        final = next((each for each in tries if each.is_stored), None)
        body = (json_object(final.body) if final is not None else None) or {}
        id = body.get("id")
        yield (final.status if final is not None else 201), id if isinstance(id, str) else None
    else:
        yield status, None
