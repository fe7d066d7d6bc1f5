"""The shapes of a batch of transfers."""

from typing import Annotated

from pydantic import BaseModel, Field

from transferd.config import Limits
from transferd.domain.transfer import BatchMode
from transferd.web.problem_schemas import InsufficientFunds, Problem
from transferd.web.schemas import EXAMPLE_TRANSFER, Body, NewTransfer, Transfer, example


class NewBatch(Body):
    """POST /transfers/batch. atomic: all or none; independent: each on its own, in order."""

    model_config = example(
        mode="atomic",
        transfers=[
            {**EXAMPLE_TRANSFER, "reference": "rent"},
            {**EXAMPLE_TRANSFER, "reference": "deposit"},
        ],
    )

    mode: BatchMode
    transfers: Annotated[
        list[NewTransfer], Field(min_length=1, max_length=Limits().batch_transfers_max)
    ]


class BatchResult(BaseModel):
    """What became of each transfer of a batch, in order: a transfer or, when refused, a problem."""

    results: list[Transfer | InsufficientFunds | Problem]
