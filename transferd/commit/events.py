"""The events of a group, as they lie in the outbox: compact JSON, completed when published."""

from collections.abc import Mapping
from datetime import datetime

import orjson

from transferd.commit.envelope import Envelope
from transferd.domain.book import Outcome, Posted, UserCreated, WalletCreated, WalletSet
from transferd.domain.transfer import PostedTransfer
from transferd.domain.wallet import ChangeKind, Wallet, WalletChange

_WALLET_EVENT = {
    ChangeKind.CREATED: "wallet.created",
    ChangeKind.FREEZE: "wallet.frozen",
    ChangeKind.UNFREEZE: "wallet.unfrozen",
    ChangeKind.CLOSE: "wallet.closed",
    ChangeKind.UPDATE: "wallet.updated",
}
_TRANSFER_EVENT = {"transfer": "transfer.posted", "reversal": "transfer.reversed"}


def events_of(envelope: Envelope, outcome: Outcome) -> list[bytes]:
    """The events of one outcome, in order; a refusal is no news.

    Ids are derived from what happened, so a repeated attempt cannot make a second event of it.
    """
    match outcome:
        case Posted(transfer):
            return [_transfer_event(envelope, transfer)]
        case WalletCreated(wallet, change, None):
            return [_wallet_event(envelope, wallet, change)]
        case WalletCreated(wallet, change, PostedTransfer() as initial):
            return [_wallet_event(envelope, wallet, change), _transfer_event(envelope, initial)]
        case WalletSet(wallet, WalletChange() as change):
            return [_wallet_event(envelope, wallet, change)]
        case UserCreated(user):
            data = {"id": user.id, "name": user.name}
            return [_event(envelope, "user.created", user.id, user.created_at, data)]
        case _:
            return []


def _transfer_event(envelope: Envelope, transfer: PostedTransfer) -> bytes:
    data = {
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
    kind = _TRANSFER_EVENT[transfer.kind]
    return _event(envelope, kind, transfer.id, transfer.created_at, data)


def _wallet_event(envelope: Envelope, wallet: Wallet, change: WalletChange) -> bytes:
    data = {
        "id": wallet.id,
        "user_id": wallet.user_id,
        "currency": wallet.currency,
        "balance": change.balance_minor,
        "overdraft_limit": change.overdraft_limit_minor,
        "status": change.status,
        "version": change.version,
    }
    id = f"{wallet.id}:{change.version}"
    return _event(envelope, _WALLET_EVENT[change.kind], id, change.created_at, data)


def _event(
    envelope: Envelope, type: str, id: str, time: datetime, data: Mapping[str, object]
) -> bytes:
    return orjson.dumps(
        {
            "id": id,
            "type": type,
            "time": time,
            "traceparent": envelope.origin.traceparent,
            "request_id": envelope.origin.request_id,
            "data": data,
        },
        option=orjson.OPT_UTC_Z,
    )
