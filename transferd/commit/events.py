"""Events of committed outcomes: a short form for the outbox, and complete CloudEvents.

CloudEvents 1.0, JSON format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from transferd.commit.origin import Origin
from transferd.domain.book import (
    BatchPosted,
    Captured,
    HoldSet,
    Outcome,
    Posted,
    UserCreated,
    WalletCreated,
    WalletSet,
)
from transferd.domain.hold import Hold
from transferd.domain.times import rfc3339
from transferd.domain.transfer import PostedTransfer, TransferKind
from transferd.domain.wallet import ChangeKind, WalletChange

CLOUD_EVENT = "application/cloudevents+json"

_CHANGE_EVENT = {
    ChangeKind.CREATED: "wallet.created",
    ChangeKind.FREEZE: "wallet.frozen",
    ChangeKind.UNFREEZE: "wallet.unfrozen",
    ChangeKind.CLOSE: "wallet.closed",
    ChangeKind.UPDATE: "wallet.updated",
    ChangeKind.HOLD_CREATE: "hold.created",
    ChangeKind.HOLD_ADJUST: "hold.adjusted",
    ChangeKind.HOLD_CAPTURE: "hold.captured",
    ChangeKind.HOLD_RELEASE: "hold.released",
    ChangeKind.HOLD_EXPIRE: "hold.expired",
}
_TRANSFER_EVENT = {
    TransferKind.TRANSFER: "transfer.posted",
    TransferKind.REVERSAL: "transfer.reversed",
    TransferKind.CAPTURE: "transfer.posted",
}


class LedgerEvent(NamedTuple):
    """An event of the ledger. Its id is derived from its subject, so a repeat has the same id."""

    id: str
    type: str
    time: datetime
    data: dict[str, object]


def events_of(origin: Origin, outcome: Outcome) -> list[bytes]:
    """The events of one outcome in the form of the outbox, in order; a refusal has none.

    An event of a transfer contains only its id, and the relay reads the transfer: this shortens the
    transaction, which locks the wallets.
    """
    match outcome:
        case Posted(transfer):
            return [_bare_event(transfer.id, origin)]
        case BatchPosted(results):
            events = []
            for each in results:
                if isinstance(each, Posted):
                    events.append(_bare_event(each.transfer.id, origin))
                else:
                    events += events_of(origin, each)
            return events
        case Captured(transfer, _, wallet, change):
            captured = _event(event_of_change(change, wallet.user_id, wallet.currency), origin)
            return [captured, _bare_event(transfer.id, origin)]
        case HoldSet(_, wallet, WalletChange() as change):
            return [_event(event_of_change(change, wallet.user_id, wallet.currency), origin)]
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


def cloud_event(event: Mapping[str, Any], ledger: str) -> bytes:
    """Convert a complete event (or `LedgerEvent._asdict()`) to a CloudEvent in JSON.

    `ledger` is the name of its ledger.
    """
    envelope = {
        "specversion": "1.0",
        "id": event["id"],
        "source": "/transferd",
        "type": event["type"],
        "subject": event["data"]["id"],
        "time": event["time"],
        "datacontenttype": "application/json",
        "ledger": ledger,
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
        "hold_id": transfer.hold_id,
    }
    return LedgerEvent(transfer.id, _TRANSFER_EVENT[transfer.kind], transfer.created_at, data)


def event_of_change(change: WalletChange, user_id: str | None, currency: str) -> LedgerEvent:
    """The event of a wallet's creation, or of a change without a transfer."""
    id = f"{change.wallet_id}:{change.version}"
    if change.hold is not None:
        # Also the version of the wallet, with what it holds then.
        wallet = {"version": change.version, "held_after": change.held_minor}
        data = hold_members(change.hold) | wallet
        return LedgerEvent(id, _CHANGE_EVENT[change.kind], change.created_at, data)
    data = {
        "id": change.wallet_id,
        "user_id": user_id,
        "currency": currency,
        "balance": change.balance_minor,
        "overdraft_limit": change.overdraft_limit_minor,
        "status": change.status,
        "version": change.version,
    }
    return LedgerEvent(id, _CHANGE_EVENT[change.kind], change.created_at, data)


def hold_members(hold: Hold) -> dict[str, object]:
    """The members of a hold that events and answers share, in the order of the contract."""
    return {
        "id": hold.id,
        "source_wallet_id": hold.source_wallet_id,
        "destination_wallet_id": hold.destination_wallet_id,
        "currency": hold.currency,
        "amount": hold.amount_minor,
        "captured": hold.captured_minor,
        "released": hold.released_minor,
        "remaining": hold.remaining_minor,
        "status": hold.status,
        "expires_at": rfc3339(hold.expires_at),
        "reference": hold.reference,
        "metadata": orjson.Fragment(hold.metadata),
    }
