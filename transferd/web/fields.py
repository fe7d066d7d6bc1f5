"""The types of single fields: their checks, and their schemas in the OpenAPI document."""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from typing_extensions import TypeAliasType

from transferd.config import Limits
from transferd.domain.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX, BALANCE_MINOR_MIN

_LIMITS = Limits()
# For the document only; `without_nul` checks it faster than a pattern.
NO_NUL = r"^[^\u0000]*$"


def without_nul(value: str) -> str:
    """The text, if PostgreSQL's type `text` can hold it. Raises PydanticCustomError."""
    if "\x00" in value:
        raise PydanticCustomError("nul_character", "must not contain U+0000")
    return value


_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_UUID_PATTERN = re.compile(_UUID)
_DIGITS = re.compile(r"-?[0-9]+")


def is_id(text: str) -> bool:
    """Whether the text has the shape of an id."""
    return _UUID_PATTERN.fullmatch(text) is not None


def _boolean(value: str) -> str:
    # pydantic would accept yes, on and 1 as well.
    if value not in ("true", "false"):
        raise PydanticCustomError("bool_parsing", "must be true or false")
    return value


def _digits(value: str) -> str:
    # pydantic would accept 1.0 and 1_000 as well.
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
# Above 2^53 - 1 JavaScript numbers are not exact.
_INT64 = Field(json_schema_extra={"format": "int64"})
Amount = Annotated[
    int,
    Field(ge=1, le=AMOUNT_MINOR_MAX, description="Minor units: 2500 USD is 25.00 dollars."),
    _INT64,
]
NonNegative = Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX), _INT64]
# A sum of amounts, as a balance is.
Held = Annotated[int, Field(ge=0, le=BALANCE_MINOR_MAX), _INT64]
Balance = Annotated[int, Field(ge=BALANCE_MINOR_MIN, le=BALANCE_MINOR_MAX), _INT64]
Version = Annotated[int, Field(ge=0, le=BALANCE_MINOR_MAX), _INT64]
InDigits = BeforeValidator(_digits)
Flag = Annotated[bool, BeforeValidator(_boolean)]
# Opaque for clients: never empty, and safe in a URL.
_CURSOR = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
Cursor = Annotated[str, WithJsonSchema(_CURSOR)]
Limit = Annotated[int, Field(ge=1, le=_LIMITS.list_items_max), InDigits]
EntryKind = TypeAliasType(
    "EntryKind",
    Literal[
        "transfer",
        "reversal",
        "capture",
        "freeze",
        "unfreeze",
        "close",
        "update",
        "hold_create",
        "hold_adjust",
        "hold_capture",
        "hold_release",
        "hold_expire",
    ],
)
KeyStatus = TypeAliasType("KeyStatus", Literal["pending", "succeeded", "refused"])


# Metadata of users, wallets, transfers and holds


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    for name, item in value.items():
        without_nul(name)
        match item:
            case str():
                without_nul(item)
            case None | bool():
                pass
            case int() if -AMOUNT_MINOR_MAX <= item <= AMOUNT_MINOR_MAX:
                pass
            case float() if math.isfinite(item):
                pass
            case int() | float():
                raise PydanticCustomError("number_range", "numbers must be finite, ±(2^53-1)")
            case _:
                raise PydanticCustomError("not_flat", "values must be strings, numbers or booleans")
    if len(orjson.dumps(value)) > _LIMITS.metadata_bytes_max:
        raise PydanticCustomError(
            "too_long", "must have at most {max} bytes as JSON", {"max": _LIMITS.metadata_bytes_max}
        )
    return value


def _null_is_empty(value: object) -> object:
    return {} if value is None else value


class _OrNull:
    """Adds null to the schema of a type that accepts null."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "anyOf": [handler(schema), {"type": "null"}],
            "description": "null is the same as {}. A number must be the same decimal value after a"
            " conversion to a double (IEEE 754): send others as strings.",
        }


# A named type is a component of its own, and a class of that name in generated clients.
Metadata = TypeAliasType(
    "Metadata",
    Annotated[
        dict[str, Any],
        AfterValidator(_flat),
        WithJsonSchema(
            {
                "type": "object",
                "propertyNames": {"pattern": NO_NUL},
                "additionalProperties": {
                    "type": ["string", "number", "boolean", "null"],
                    "pattern": NO_NUL,
                },
                "description": f"Flat; at most {_LIMITS.metadata_bytes_max} bytes as JSON.",
            }
        ),
    ],
)
# In a request null is the same as {}: left out where something is created, removed by a PATCH.
NewMetadata = Annotated[Metadata, BeforeValidator(_null_is_empty), _OrNull()]


def metadata_text(metadata: dict[str, Any]) -> str:
    """Metadata as stored: compact JSON, with the bytes of later answers."""
    return orjson.dumps(metadata).decode() if metadata else "{}"


# Times: RFC 3339 with an offset, inside a range that every layer can hold

# No row is older.
TIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
# The last second that a datetime can hold, without its last microsecond: the database driver
# takes `datetime.max` for PostgreSQL's infinity, and gives that back without an offset.
TIME_MAX = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _rfc_3339(value: object) -> str:
    # pydantic would accept seconds since 1970 as well.
    if not isinstance(value, str) or _RFC_3339.fullmatch(value) is None:
        raise PydanticCustomError("datetime_parsing", "must be a time with an offset (RFC 3339)")
    return value


def _nearest(value: datetime) -> datetime:
    # Compared before the conversion: in UTC the year may be out of range for a datetime.
    return min(max(value, TIME_MIN), TIME_MAX).astimezone(UTC)


def _in_range(value: datetime) -> datetime:
    if not TIME_MIN <= value <= TIME_MAX:
        raise PydanticCustomError(
            "datetime_range",
            "must be from {first} to {last}",
            {"first": _shown(TIME_MIN), "last": _shown(TIME_MAX)},
        )
    return value.astimezone(UTC)


def _shown(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


# A strict model takes no text for a time after another validator has seen it.
_Given = Annotated[AwareDatetime, Strict(False), BeforeValidator(_rfc_3339)]
# A bound of a search. No row lies outside the range, so a bound outside means the same as its end.
QueryTime = Annotated[_Given, AfterValidator(_nearest)]
# A time to store: exact, or refused.
StoredTime = Annotated[_Given, AfterValidator(_in_range)]
