"""Batches of payments and captures, as the load sends them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from loadtest.proof.record import Kind, Operation
from tests.fault.chaos.hold_requests import HoldRequests, body_of_capture
from tests.support.api import Api, Reply

# The default share of batches in the load.
BATCHES = 0.05
_ITEMS_MAX = 3
_AMOUNTS = (1, 50)
_TOO_MUCH = 10**9


def any_batch(
    random: Random, key: Callable[[], str], wallets: Sequence[str], holds: HoldRequests
) -> Operation:
    """A random batch of payments and captures, half of them atomic, not sent yet.

    Its payments have different sources and its captures different holds. So no item of an atomic
    batch is refused because of an earlier one, whose effect the ledger never has.
    """
    *sources, destination = random.sample(wallets, random.randint(1, _ITEMS_MAX) + 1)
    items = [
        Operation(
            Kind.TRANSFER,
            source=source,
            destination=destination,
            amount=random.randint(*_AMOUNTS) if random.random() < 0.95 else _TOO_MUCH,
        )
        for source in sources
    ]
    items += holds.captures(random.randint(0, _ITEMS_MAX))
    random.shuffle(items)
    bare = [replace(item, key="") for item in items]
    return Operation(Kind.BATCH, key(), items=bare, atomic=random.random() < 0.5)


async def reply_about_batch(api: Api, operation: Operation) -> Reply:
    """Send the request."""
    mode = "atomic" if operation.atomic else "independent"
    body = {"mode": mode, "transfers": [_body_of(item) for item in operation.items]}
    return await api.post("/transfers/batch", body, key=operation.key)


def _body_of(item: Operation) -> dict[str, object]:
    if item.kind is Kind.CAPTURE:
        return {"hold_id": item.hold, **body_of_capture(item)}
    return {
        "source_wallet_id": item.source,
        "destination_wallet_id": item.destination,
        "amount": item.amount,
        "currency": "USD",
    }
