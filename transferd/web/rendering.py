"""Results -> JSON bytes. A stored transfer is rendered again for a replay: same bytes for ever."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache

import orjson

from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.domain.book import (
    BatchPosted,
    Outcome,
    Posted,
    UserCreated,
    WalletCreated,
    WalletSet,
)
from transferd.domain.errors import Reason, Refused
from transferd.domain.transfer import PostedTransfer
from transferd.domain.user import User
from transferd.domain.wallet import CreateWallet, Wallet
from transferd.domain.webhook import Webhook
from transferd.ledger.store.currencies import Currency
from transferd.ledger.store.deliveries import Delivery
from transferd.ledger.store.statements import StatementEntry
from transferd.web import problems

# The outcome of a reused key stays the first one. If-Match is no part of the fingerprint, so the
# same request may succeed with another If-Match.
_NOT_KEPT = frozenset({Reason.IDEMPOTENCY_KEY_REUSED, Reason.VERSION_CHANGED})


class Rendering:
    """The `Renderer` of the group commit, and of the routes."""

    def outcome(self, envelope: Envelope, outcome: Outcome) -> Answer:
        """The answer to a command that was decided just now."""
        match outcome:
            case Posted(transfer):
                return Answer(201, self.transfer(transfer))
            case Refused(reason) as refused:
                body = self.refusal(envelope, refused)
                return Answer(problems.TYPES[reason].status, body, kept=reason not in _NOT_KEPT)
            case BatchPosted(results):
                bodies = [
                    self.transfer(r.transfer)
                    if isinstance(r, Posted)
                    else self.refusal(envelope, r)
                    for r in results
                ]
                return Answer(200, self.batch(bodies))
            case WalletCreated(wallet, _, initial):
                return Answer(201, self.wallet(_after(wallet, initial)))
            case WalletSet(wallet, _):
                status = 201 if isinstance(envelope.command, CreateWallet) else 200
                return Answer(status, self.wallet(wallet))
            case UserCreated(user):
                return Answer(201, self.user(user))

    def refusal(self, envelope: Envelope, refused: Refused) -> bytes:
        """A refusal as a problem."""
        return problems.render(refused.reason, refused.detail, refused.facts, envelope.origin)

    def batch(self, results: Sequence[bytes]) -> bytes:
        """A posted batch (render version 2): its transfers and problems, in order."""
        return b'{"results":[%s]}' % b",".join(results)

    def transfer(self, transfer: PostedTransfer) -> bytes:
        """A posted transfer (render version 1; never change it, add a version instead)."""
        return orjson.dumps(transfer_view(transfer))

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
    return view


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


# All changes of a group have the same time.
@lru_cache(maxsize=64)
def rfc3339(time: datetime) -> str:
    """UTC with microseconds and a Z (RFC 3339 section 5.6)."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _after(wallet: Wallet, initial: PostedTransfer | None) -> Wallet:
    """A wallet that was created at version 0, after its initial balance has arrived."""
    if initial is None:
        return wallet
    return replace(
        wallet,
        balance_minor=initial.destination_balance_after_minor,
        version=initial.destination_version,
    )
