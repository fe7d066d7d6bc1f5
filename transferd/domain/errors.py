"""Refusals (business answers, as values) and failures of the machinery (exceptions)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """The reasons for a refusal. Each is also the code of a problem in the HTTP API."""

    USER_NOT_FOUND = "user-not-found"
    WALLET_NOT_FOUND = "wallet-not-found"
    TRANSFER_NOT_FOUND = "transfer-not-found"
    SAME_WALLET = "same-wallet"
    CURRENCY_MISMATCH = "currency-mismatch"
    VERSION_CHANGED = "version-changed"
    WALLET_FROZEN = "wallet-frozen"
    WALLET_CLOSED = "wallet-closed"
    WALLET_NOT_EMPTY = "wallet-not-empty"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    BALANCE_OUT_OF_RANGE = "balance-out-of-range"
    HOLD_NOT_FOUND = "hold-not-found"
    HOLD_NOT_ACTIVE = "hold-not-active"
    HOLD_EXPIRED = "hold-expired"
    CAPTURE_EXCEEDS_HOLD = "capture-exceeds-hold"
    AMOUNT_BELOW_CAPTURED = "amount-below-captured"
    EXPIRY_INVALID = "expiry-invalid"
    TOO_MANY_HOLDS = "too-many-holds"
    DESTINATION_MISSING = "destination-missing"
    DESTINATION_MISMATCH = "destination-mismatch"
    NOT_REVERSIBLE = "not-reversible"
    REVERSAL_EXCEEDS_TRANSFER = "reversal-exceeds-transfer"
    BATCH_REFUSED = "batch-refused"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal. `facts` are further members of the problem, such as available and shortfall."""

    reason: Reason
    detail: str
    facts: Mapping[str, object] = field(default_factory=dict)


class TransferdError(Exception):
    """A failure of the machinery. The docstring of each subclass is the detail of its problem."""

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())
        self.retry_after_s = retry_after_s


class MailboxFull(TransferdError):
    """Too many commands wait for this wallet; nothing happened. Try again after Retry-After."""


class Overloaded(TransferdError):
    """This replica has too much work outstanding; nothing happened. Try again after Retry-After."""


class Draining(TransferdError):
    """This replica is stopping and accepts no new commands; nothing happened. Try again."""


class DatabaseUnavailable(TransferdError):
    """PostgreSQL is out of reach; nothing happened. Try again after Retry-After."""


class DeadlineExceeded(TransferdError):
    """The outcome is unknown at the deadline. Repeat the request with the same key to get it."""


class RequestInProgress(TransferdError):
    """A request with this key is still running. Repeat it with the same key to get its answer."""


class InternalFailure(TransferdError):
    """An internal error has occurred. Repeat the request with the same key, and report its id."""
