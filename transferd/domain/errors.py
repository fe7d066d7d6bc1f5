"""Why a command was refused (a business answer) and how the machinery can fail (an exception)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """The slugs of everything that `decide` may refuse; the same words travel over HTTP."""

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
    NOT_REVERSIBLE = "not-reversible"
    REVERSAL_EXCEEDS_TRANSFER = "reversal-exceeds-transfer"
    BATCH_REFUSED = "batch-refused"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"


@dataclass(frozen=True, slots=True)
class Refused:
    """A business answer of "no". `facts` hold what would help, e.g. available and shortfall."""

    reason: Reason
    detail: str
    facts: Mapping[str, object] = field(default_factory=dict)


class TransferdError(Exception):
    """Machinery failed; the docstring of each subclass is its sentence to the reader."""

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())
        self.retry_after_s = retry_after_s


class MailboxFull(TransferdError):
    """This wallet has too much waiting; nothing happened. Try again after the time given."""


class Overloaded(TransferdError):
    """The service has too much waiting; nothing happened. Try again after the time given."""


class Draining(TransferdError):
    """This replica is stopping and takes no new work; nothing happened. Try again."""


class DatabaseUnavailable(TransferdError):
    """PostgreSQL is out of reach; nothing happened. Try again after the time given."""


class DeadlineExceeded(TransferdError):
    """The outcome is not known in time. Repeat the request with the same key to learn it."""


class RequestInProgress(TransferdError):
    """A request with this key is still running. Repeat it with the same key to learn its answer."""


class InternalFailure(TransferdError):
    """Something went wrong here. Repeat the request with the same key, and report its id."""
