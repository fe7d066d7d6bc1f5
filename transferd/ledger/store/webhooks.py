"""Webhook endpoints. Each change counts up a version, so that notifiers notice it."""

from collections.abc import Sequence
from datetime import datetime

from transferd.domain.webhook import OldSecret, Webhook, WebhookStatus
from transferd.ledger.store.database import LedgerDatabase, Row, Transaction

# How the status is stored: by position.
_STATUSES = (WebhookStatus.ACTIVE, WebhookStatus.DISABLED)


async def insert_webhook(
    transaction: Transaction,
    *,
    id: str,
    client_id: int,
    url: str,
    events: Sequence[str],
    wallet_id: str | None,
    secret: str,
) -> Webhook:
    """A new endpoint."""
    return await _changed(
        transaction, "insert_webhook", id, client_id, url, list(events), wallet_id, secret
    )


async def read_webhook(source: LedgerDatabase | Transaction, id: str) -> Webhook | None:
    """One endpoint, or None."""
    rows = await source.fetch("read_webhooks", id)
    return _webhook_of(rows[0]) if rows else None


async def read_all_webhooks(source: LedgerDatabase | Transaction) -> list[Webhook]:
    """All endpoints."""
    return [_webhook_of(row) for row in await source.fetch("read_webhooks", None)]


async def webhooks_version(transaction: Transaction) -> int:
    """A number that each change of a webhook counts up."""
    [row] = await transaction.fetch("webhooks_version")
    version: int = row["version"]
    return version


async def list_webhooks(
    database: LedgerDatabase, *, before_id: str | None, limit: int
) -> list[Webhook]:
    """Newest first, those with an id below `before_id`."""
    return [_webhook_of(row) for row in await database.fetch("list_webhooks", before_id, limit)]


async def update_webhook(
    transaction: Transaction,
    id: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    status: WebhookStatus | None = None,
    reason: str | None = None,
) -> Webhook | None:
    """Change the values that are not None. `reason` says why the endpoint is disabled.

    None if there is no such endpoint.
    """
    number = None if status is None else _STATUSES.index(status)
    chosen = None if events is None else list(events)
    return await _changed_if_there(transaction, "update_webhook", id, url, chosen, number, reason)


async def lock_webhook(transaction: Transaction, id: str) -> tuple[Webhook, datetime] | None:
    """Lock an endpoint until the transaction ends; the endpoint and the database's time."""
    rows = await transaction.fetch("lock_webhook", id)
    return (_webhook_of(rows[0]), rows[0]["now"]) if rows else None


async def rotate_webhook(
    transaction: Transaction,
    id: str,
    *,
    secret: str,
    overlap_s: float,
    promised: Sequence[OldSecret],
) -> Webhook:
    """Give a locked endpoint a new secret. The current one also signs for `overlap_s` seconds.

    `promised` are the old secrets that still sign, each until its own time.
    """
    secrets = [old.secret for old in promised]
    until = [old.until for old in promised]
    return await _changed(transaction, "rotate_webhook", id, secret, overlap_s, secrets, until)


async def delete_webhook(transaction: Transaction, id: str) -> bool:
    """Remove an endpoint and its log; whether it was there."""
    rows = await transaction.fetch("delete_webhook", id)
    await transaction.fetch("count_webhook_change")
    return bool(rows)


async def _changed(transaction: Transaction, name: str, *arguments: object) -> Webhook:
    webhook = await _changed_if_there(transaction, name, *arguments)
    assert webhook is not None
    return webhook


async def _changed_if_there(
    transaction: Transaction, name: str, *arguments: object
) -> Webhook | None:
    rows = await transaction.fetch(name, *arguments)
    await transaction.fetch("count_webhook_change")
    return _webhook_of(rows[0]) if rows else None


def _webhook_of(row: Row) -> Webhook:
    old = zip(row["old_secrets"], row["old_secrets_until"], strict=True)
    old_secrets = [OldSecret(*each) for each in old]
    if row["previous_secret"] not in (None, *row["old_secrets"]):
        # A replica of the version before has replaced it.
        old_secrets.insert(0, OldSecret(row["previous_secret"], row["previous_secret_until"]))
    return Webhook(
        id=row["id"],
        url=row["url"],
        events=tuple(row["events"]),
        wallet_id=row["wallet_id"],
        status=_STATUSES[row["status"]],
        disabled_reason=row["disabled_reason"],
        secret=row["secret"],
        old_secrets=tuple(old_secrets),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
