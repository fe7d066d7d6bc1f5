"""Transfers and reversals: the commands, and the row that a posted one leaves."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class TransferKind(StrEnum):
    """Why money moved. Deposits and withdrawals have a funding wallet on one side."""

    TRANSFER = "transfer"
    REVERSAL = "reversal"


class PostedTransfer(NamedTuple):
    """A transfer as stored: one row that is both its entries. Never changed afterwards."""

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
    """atomic: all of it or nothing. independent: each transfer on its own, after those before."""

    ATOMIC = "atomic"
    INDEPENDENT = "independent"


class Batch(NamedTuple):
    """Command: these transfers in this order, in one transaction."""

    mode: BatchMode
    transfers: tuple[Transfer, ...]


class Reversal(NamedTuple):
    """Command: give back `amount_minor` of `original`, or all that is left of it when None.

    `original` was read before; None means that there is no such transfer. Without a `reference` the
    reversal has that of the original.
    """

    id: str
    original_id: str
    original: PostedTransfer | None
    amount_minor: int | None
    reference: str | None = None
    metadata: str = "{}"
