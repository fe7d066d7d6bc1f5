"""The shapes of a batch of transfers."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from transferd.config import Limits
from transferd.web.schemas import Body, NewTransfer, Problem, Transfer


class NewBatch(Body):
    """POST /transfers/batch. atomic: all or none; independent: each on its own, in order."""

    mode: Literal["atomic", "independent"]
    transfers: Annotated[
        list[NewTransfer], Field(min_length=1, max_length=Limits().batch_transfers_max)
    ]


class BatchResult(BaseModel):
    """What became of each transfer of a batch, in order: a transfer or, when refused, a problem."""

    results: list[Transfer | Problem]
