"""Events of committed outcomes: a short form for the outbox, and complete CloudEvents.

CloudEvents 1.0, JSON format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from transferd.commit.envelope import Envelope
from transferd.commit.origin import Origin
from transferd.domain.book import (
    BatchPosted,
    Outcome,
    Posted,
    UserCreated,
    WalletCreated,
    WalletSet,
)
from transferd.domain.transfer import PostedTransfer
from transferd.domain.wallet import ChangeKind, WalletChange

CLOUD_EVENT = "application/cloudevents+json"

_WALLET_EVENT = {
    ChangeKind.CREATED: "wallet.created",
    ChangeKind.FREEZE: "wallet.frozen",
    ChangeKind.UNFREEZE: "wallet.unfrozen",
    ChangeKind.CLOSE: "wallet.closed",
    ChangeKind.UPDATE: "wallet.updated",
}
_TRANSFER_EVENT = {"transfer": "transfer.posted", "reversal": "transfer.reversed"}


class LedgerEvent(NamedTuple):
    """An event of the ledger. Its id is derived from its subject, so a repeat has the same id."""

    id: str
    type: str
    time: datetime
    data: dict[str, object]


def events_of(envelope: Envelope, outcome: Outcome) -> list[bytes]:
    """The events of one outcome in the form of the outbox, in order; a refusal has none.

    An event of a transfer contains only its id, and the relay reads the transfer: this shortens the
    transaction, which locks the wallets.
    """
    origin = envelope.origin
    match outcome:
        case Posted(transfer):
            return [_bare_event(transfer.id, origin)]
        case BatchPosted(results):
            return [
                _bare_event(result.transfer.id, origin)
                for result in results
                if isinstance(result, Posted)
            ]
        case WalletCreated(wallet, change, initial):
            created = _event(event_of_change(change, wallet.user_id, wallet.currency), origin)
            return [created] if initial is None else [created, _bare_event(initial.id, origin)]
        case WalletSet(wallet, WalletChange() as change):
            return [_event(event_of_change(change, wallet.user_id, wallet.currency), origin)]
        case UserCreated(user):
            data: dict[str, object] = {"id": user.id, "name": user.name}
            return [_event(LedgerEvent(user.id, "user.created", user.created_at, data), origin)]
        case _:
            return []


def _bare_event(transfer_id: str, origin: Origin) -> bytes:
    # The ids of an origin are checked: they need no escapes.
    return (
        f'{{"id":"{transfer_id}","traceparent":"{origin.traceparent}"'
        f',"request_id":"{origin.request_id}"}}'
    ).encode()


def _event(event: LedgerEvent, origin: Origin) -> bytes:
    ids = {"traceparent": origin.traceparent, "request_id": origin.request_id}
    return orjson.dumps(event._asdict() | ids, option=orjson.OPT_UTC_Z)


def is_bare(event: Mapping[str, Any]) -> bool:
    """Whether this event of the outbox contains only the id of a transfer."""
    return "data" not in event


def completed(
    event: Mapping[str, Any], transfers: Mapping[str, PostedTransfer]
) -> Mapping[str, Any]:
    """An event of the outbox with all its members; `transfers` has the transfer of a bare one."""
    if not is_bare(event):
        return event
    return {**event_of_transfer(transfers[event["id"]])._asdict(), **event}


def cloud_event(event: Mapping[str, Any]) -> bytes:
    """Convert a complete event (or `LedgerEvent._asdict()`) to a CloudEvent in JSON."""
    envelope = {
        "specversion": "1.0",
        "id": event["id"],
        "source": "/transferd",
        "type": event["type"],
        "subject": event["data"]["id"],
        "time": event["time"],
        "datacontenttype": "application/json",
    }
    if "traceparent" in event:
        envelope["traceparent"] = event["traceparent"]
        envelope["requestid"] = event["request_id"]
    envelope["data"] = event["data"]
    return orjson.dumps(envelope, option=orjson.OPT_UTC_Z)


def event_of_transfer(transfer: PostedTransfer) -> LedgerEvent:
    """The event of a posted transfer or reversal, with both balances after it."""
    data: dict[str, object] = {
        "id": transfer.id,
        "kind": transfer.kind,
        "source_wallet_id": transfer.source_wallet_id,
        "destination_wallet_id": transfer.destination_wallet_id,
        "amount": transfer.amount_minor,
        "currency": transfer.currency,
        "reference": transfer.reference,
        "metadata": orjson.Fragment(transfer.metadata),
        "source_version": transfer.source_version,
        "source_balance_after": transfer.source_balance_after_minor,
        "destination_version": transfer.destination_version,
        "destination_balance_after": transfer.destination_balance_after_minor,
        "reverses_transfer_id": transfer.reverses_transfer_id,
    }
    return LedgerEvent(transfer.id, _TRANSFER_EVENT[transfer.kind], transfer.created_at, data)


def event_of_change(change: WalletChange, user_id: str | None, currency: str) -> LedgerEvent:
    """The event of a wallet's creation, or of a change without a transfer."""
    data: dict[str, object] = {
        "id": change.wallet_id,
        "user_id": user_id,
        "currency": currency,
        "balance": change.balance_minor,
        "overdraft_limit": change.overdraft_limit_minor,
        "status": change.status,
        "version": change.version,
    }
    id = f"{change.wallet_id}:{change.version}"
    return LedgerEvent(id, _WALLET_EVENT[change.kind], change.created_at, data)
