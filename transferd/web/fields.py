"""The types of single fields: what is checked of them, and what the OpenAPI document says."""

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from transferd.config import Limits
from transferd.domain.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX, BALANCE_MINOR_MIN
from transferd.web.metadata import NO_NUL, without_nul

_LIMITS = Limits()
_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_UUID_PATTERN = re.compile(_UUID)
_DIGITS = re.compile(r"-?[0-9]+")


def is_id(text: str) -> bool:
    """Whether the text has the shape of an id."""
    return _UUID_PATTERN.fullmatch(text) is not None


def _boolean(value: str) -> str:
    # pydantic would read yes, on and 1 as well.
    if value not in ("true", "false"):
        raise PydanticCustomError("bool_parsing", "must be true or false")
    return value


def _digits(value: str) -> str:
    # pydantic would read 1.0 and 1_000 as well.
    if _DIGITS.fullmatch(value) is None:
        raise PydanticCustomError("int_parsing", "must be an integer in decimal digits")
    return value


Id = Annotated[
    str,
    StringConstraints(pattern=_UUID, to_lower=True),
    Field(json_schema_extra={"format": "uuid"}),
]
Text = Annotated[
    str,
    StringConstraints(max_length=_LIMITS.text_chars_max),
    AfterValidator(without_nul),
    Field(json_schema_extra={"pattern": NO_NUL}),
]
CurrencyCode = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]
# What a number of JavaScript cannot hold exactly above 2^53 - 1.
_INT64 = Field(json_schema_extra={"format": "int64"})
Amount = Annotated[
    int,
    Field(ge=1, le=AMOUNT_MINOR_MAX, description="Minor units: 2500 USD is 25.00 dollars."),
    _INT64,
]
NonNegative = Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX), _INT64]
Balance = Annotated[int, Field(ge=BALANCE_MINOR_MIN, le=BALANCE_MINOR_MAX), _INT64]
Version = Annotated[int, Field(ge=0, le=BALANCE_MINOR_MAX), _INT64]
InDigits = BeforeValidator(_digits)
Flag = Annotated[bool, BeforeValidator(_boolean)]
# Clients need not know what a cursor is made of; it is never empty, and safe in an address.
_CURSOR = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
Cursor = Annotated[str, WithJsonSchema(_CURSOR)]
Limit = Annotated[int, Field(ge=1, le=_LIMITS.list_items_max), InDigits]
EntryKind = TypeAliasType(
    "EntryKind", Literal["transfer", "reversal", "freeze", "unfreeze", "close", "update"]
)
KeyStatus = TypeAliasType("KeyStatus", Literal["pending", "succeeded", "refused"])
