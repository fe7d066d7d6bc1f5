"""Transfers, reversals and batches, which may capture holds: the commands; a posted transfer."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from transferd.domain.hold import Capture


class TransferKind(StrEnum):
    """The kind of a transfer. Deposits and withdrawals are transfers with a funding wallet."""

    TRANSFER = "transfer"
    REVERSAL = "reversal"
    CAPTURE = "capture"


class PostedTransfer(NamedTuple):
    """A transfer as stored: one row with both of its entries, which never changes."""

    id: str
    kind: TransferKind
    source_wallet_id: str
    destination_wallet_id: str
    amount_minor: int
    currency: str
    reference: str | None
    metadata: str
    source_version: int
    source_balance_after_minor: int
    destination_version: int
    destination_balance_after_minor: int
    reverses_transfer_id: str | None
    created_at: datetime
    hold_id: str | None = None


class Transfer(NamedTuple):
    """Command: move `amount_minor` from source to destination."""

    id: str
    source_wallet_id: str
    destination_wallet_id: str
    amount_minor: int
    currency: str
    reference: str | None
    metadata: str


class BatchMode(StrEnum):
    """atomic: all transfers are posted, or none. independent: a refusal of one transfer does not
    affect the others."""

    ATOMIC = "atomic"
    INDEPENDENT = "independent"


class Batch(NamedTuple):
    """Command: several transfers and captures, decided in this order, in one transaction."""

    mode: BatchMode
    transfers: tuple[Transfer | Capture, ...]


class Reversal(NamedTuple):
    """Command: reverse `amount_minor` of `original`; None reverses the whole remaining amount.

    `original` is None if there is no such transfer. A `reference` of None takes the reference of
    the original.
    """

    id: str
    original_id: str
    original: PostedTransfer | None
    amount_minor: int | None
    reference: str | None = None
    metadata: str = "{}"
