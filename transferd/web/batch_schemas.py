"""The shapes of a batch of transfers."""

from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag

from transferd.config import Limits
from transferd.domain.transfer import BatchMode
from transferd.web.fields import Id
from transferd.web.hold_schemas import EXAMPLE_HOLD_ID, NewCapture
from transferd.web.problem_schemas import (
    CaptureExceedsHold,
    DestinationMismatch,
    HoldExpired,
    HoldNotActive,
    InsufficientFunds,
    Problem,
)
from transferd.web.schemas import EXAMPLE_TRANSFER, Body, NewTransfer, Transfer, example


class BatchCapture(NewCapture):
    """A capture as an item of a batch."""

    model_config = example(hold_id=EXAMPLE_HOLD_ID, amount=15000, final=False)

    hold_id: Id


# The tags of the two kinds of items, which pydantic puts into the places of its errors.
ITEM_TAGS = ("transfer", "capture")


def _tag_of(item: Any) -> str:
    return ITEM_TAGS[isinstance(item, dict) and "hold_id" in item]


BatchItem = NewTransfer | BatchCapture


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
        list[
            Annotated[
                Annotated[NewTransfer, Tag(ITEM_TAGS[0])]
                | Annotated[BatchCapture, Tag(ITEM_TAGS[1])],
                Discriminator(_tag_of),
            ]
        ],
        Field(min_length=1, max_length=Limits().batch_transfers_max),
    ]


class BatchResult(BaseModel):
    """What became of each transfer of a batch, in order: a transfer or, when refused, a problem."""

    results: list[
        Transfer
        | InsufficientFunds
        | HoldNotActive
        | HoldExpired
        | CaptureExceedsHold
        | DestinationMismatch
        | Problem
    ]
