"""Results -> JSON bytes. A replay renders the stored transfer again, and must give equal bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.commit.events import hold_members
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
from transferd.domain.errors import Reason, Refused
from transferd.domain.hold import CreateHold, Hold
from transferd.domain.times import rfc3339
from transferd.domain.transfer import PostedTransfer
from transferd.domain.user import User
from transferd.domain.wallet import CreateWallet, Wallet
from transferd.domain.webhook import Webhook
from transferd.ledger.store.currencies import Currency
from transferd.ledger.store.database import LedgerDatabase, Transaction
from transferd.ledger.store.deliveries import Delivery
from transferd.ledger.store.outcomes import RENDER_BATCH, RENDER_SINGLE, StoredAnswer
from transferd.ledger.store.statements import StatementEntry
from transferd.ledger.store.transfers import read_transfers
from transferd.web import problems

# The outcome of a reused key stays the first one. If-Match is no part of the fingerprint, so the
# same request may succeed with another If-Match.
_NOT_KEPT = frozenset({Reason.IDEMPOTENCY_KEY_REUSED, Reason.VERSION_CHANGED})


class Rendering:
    """Implements `Renderer` for the group commit, and renders for the routes."""

    def answer(self, envelope: Envelope, outcome: Outcome) -> Answer:
        """The answer to a command that was decided just now.

        A transfer is stored as its id, a batch as the ids of its transfers and the bodies of its
        refusals, and everything else as its body.
        """
        match outcome:
            case Posted(transfer):
                stored = StoredAnswer(RENDER_SINGLE, transfer.id, None)
                return Answer(201, self.transfer(transfer), stored)
            case Refused(reason) as refused:
                body = _refusal(envelope, refused)
                status = problems.TYPES[reason].status
                return Answer(status, body) if reason in _NOT_KEPT else _stored_whole(status, body)
            case Captured(transfer):
                stored = StoredAnswer(RENDER_SINGLE, transfer.id, None)
                return Answer(201, self.transfer(transfer), stored)
            case BatchPosted(results):
                return self._batch_answer(envelope, results)
            case HoldSet(hold, _, _):
                status = 201 if isinstance(envelope.command, CreateHold) else 200
                return _stored_whole(status, self.hold(hold))
            case WalletCreated(wallet, _, initial):
                return _stored_whole(201, self.wallet(_after(wallet, initial)))
            case WalletSet(wallet, _):
                status = 201 if isinstance(envelope.command, CreateWallet) else 200
                return _stored_whole(status, self.wallet(wallet))
            case UserCreated(user):
                return _stored_whole(201, self.user(user))

    def _batch_answer(
        self, envelope: Envelope, results: Sequence[Posted | Captured | Refused]
    ) -> Answer:
        bodies: list[bytes] = []
        items: list[str | orjson.Fragment] = []
        for result in results:
            if not isinstance(result, Refused):
                bodies.append(self.transfer(result.transfer))
                items.append(result.transfer.id)
            else:
                bodies.append(_refusal(envelope, result))
                items.append(orjson.Fragment(bodies[-1]))
        return Answer(200, _batch(bodies), StoredAnswer(RENDER_BATCH, None, orjson.dumps(items)))

    async def replay(
        self, stored: Sequence[StoredAnswer], source: LedgerDatabase | Transaction
    ) -> list[bytes]:
        """The bodies of stored answers, from one read of all their transfers."""
        batches = [
            orjson.loads(answer.body or b"[]") if answer.render_version == RENDER_BATCH else []
            for answer in stored
        ]
        ids = [answer.transfer_id for answer in stored if answer.transfer_id is not None]
        ids += [item for batch in batches for item in batch if isinstance(item, str)]
        transfers = await read_transfers(source, ids) if ids else {}
        return [
            self._replay_one(answer, batch, transfers)
            for answer, batch in zip(stored, batches, strict=True)
        ]

    def _replay_one(
        self,
        stored: StoredAnswer,
        batch: Sequence[object],
        transfers: Mapping[str, PostedTransfer],
    ) -> bytes:
        if stored.transfer_id is not None:
            return self.transfer(transfers[stored.transfer_id])
        if stored.render_version == RENDER_BATCH:
            return _batch(
                [
                    self.transfer(transfers[item]) if isinstance(item, str) else orjson.dumps(item)
                    for item in batch
                ]
            )
        return stored.body or b""

    def transfer(self, transfer: PostedTransfer) -> bytes:
        """A posted transfer (render version 1; never change it, add a version instead)."""
        return orjson.dumps(transfer_view(transfer))

    def hold(self, hold: Hold) -> bytes:
        """A hold."""
        return orjson.dumps(hold_view(hold))

    def wallet(self, wallet: Wallet) -> bytes:
        """A wallet."""
        return orjson.dumps(wallet_view(wallet))

    def past_wallet(self, wallet: Wallet) -> bytes:
        """A wallet before an instant: without metadata, which have no history."""
        view = wallet_view(wallet)
        del view["metadata"]
        return orjson.dumps(view)

    def user(self, user: User) -> bytes:
        """A user."""
        return orjson.dumps(user_view(user))


def _stored_whole(status: int, body: bytes) -> Answer:
    return Answer(status, body, StoredAnswer(RENDER_SINGLE, None, body))


def _refusal(envelope: Envelope, refused: Refused) -> bytes:
    return problems.render(refused.reason, refused.detail, refused.facts, envelope.origin)


def _batch(results: Sequence[bytes]) -> bytes:
    """A posted batch (render version 2): its transfers and problems, in order."""
    return b'{"results":[%s]}' % b",".join(results)


def transfer_view(transfer: PostedTransfer) -> dict[str, object]:
    """The fields of a transfer, in the order of the contract."""
    view: dict[str, object] = {
        "id": transfer.id,
        "source_wallet_id": transfer.source_wallet_id,
        "destination_wallet_id": transfer.destination_wallet_id,
        "amount": transfer.amount_minor,
        "currency": transfer.currency,
        "kind": transfer.kind,
        "status": "posted",
        "reference": transfer.reference,
        "metadata": orjson.Fragment(transfer.metadata),
        "source_version": transfer.source_version,
        "source_balance_after": transfer.source_balance_after_minor,
        "created_at": rfc3339(transfer.created_at),
    }
    if transfer.reverses_transfer_id is not None:
        view["reverses_transfer_id"] = transfer.reverses_transfer_id
    if transfer.hold_id is not None:
        view["hold_id"] = transfer.hold_id
    return view


def hold_view(hold: Hold) -> dict[str, object]:
    """The fields of a hold, in the order of the contract."""
    return hold_members(hold) | {
        "created_at": rfc3339(hold.created_at),
        "updated_at": rfc3339(hold.updated_at),
    }


def wallet_view(wallet: Wallet) -> dict[str, object]:
    """The fields of a wallet, in the order of the contract."""
    return {
        "id": wallet.id,
        "user_id": wallet.user_id,
        "currency": wallet.currency,
        "balance": wallet.balance_minor,
        "held": wallet.held_minor,
        "available": wallet.available_minor,
        "overdraft_limit": wallet.overdraft_limit_minor,
        "status": wallet.status,
        "version": wallet.version,
        "updated_at": rfc3339(wallet.updated_at),
        "created_at": rfc3339(wallet.created_at),
        "metadata": orjson.Fragment(wallet.metadata),
    }


def user_view(user: User) -> dict[str, object]:
    """The fields of a user."""
    return {
        "id": user.id,
        "name": user.name,
        "metadata": orjson.Fragment(user.metadata),
        "created_at": rfc3339(user.created_at),
    }


def entry_view(entry: StatementEntry) -> dict[str, object]:
    """The fields of a statement's entry, in the order of the contract."""
    return {
        "transfer_id": entry.transfer_id,
        "kind": entry.kind,
        "amount": entry.amount_minor,
        "balance_after": entry.balance_after_minor,
        "version": entry.version,
        "counterparty_wallet_id": entry.counterparty_wallet_id,
        "reference": entry.reference,
        "hold_id": entry.hold_id,
        "held_after": entry.held_after_minor,
        "created_at": rfc3339(entry.created_at),
        "metadata": orjson.Fragment(entry.metadata),
    }


def currency_view(currency: Currency) -> dict[str, object]:
    """The fields of a currency."""
    return {
        "code": currency.code,
        "name": currency.name,
        "exponent": currency.exponent,
        "funding_wallet_id": currency.funding_wallet_id,
    }


def webhook_view(webhook: Webhook, *, secret: str | None = None) -> dict[str, object]:
    """The fields of a webhook; its secret only where it is handed out."""
    until = webhook.old_secrets[0].until if webhook.old_secrets else None
    view: dict[str, object] = {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "wallet_id": webhook.wallet_id,
        "status": webhook.status,
        "disabled_reason": webhook.disabled_reason,
        "previous_secret_until": None if until is None else rfc3339(until),
        "created_at": rfc3339(webhook.created_at),
        "updated_at": rfc3339(webhook.updated_at),
    }
    if secret is not None:
        view["secret"] = secret
    return view


def delivery_view(delivery: Delivery) -> dict[str, object]:
    """The fields of a row of a webhook's delivery log."""
    due = delivery.next_attempt_at
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "response_status": delivery.response_status,
        "error": delivery.error,
        "response_excerpt": delivery.response_excerpt,
        "next_attempt_at": None if due is None else rfc3339(due),
        "created_at": rfc3339(delivery.created_at),
        "updated_at": rfc3339(delivery.updated_at),
    }


def _after(wallet: Wallet, initial: PostedTransfer | None) -> Wallet:
    """A wallet that was created at version 0, after its initial balance has arrived."""
    if initial is None:
        return wallet
    return replace(
        wallet,
        balance_minor=initial.destination_balance_after_minor,
        version=initial.destination_version,
    )
