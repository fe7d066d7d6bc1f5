"""Metadata of users, wallets and transfers: its type, and its text as it is stored."""

import math
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BeforeValidator, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from typing_extensions import TypeAliasType

from transferd.config import Limits
from transferd.domain.money import AMOUNT_MINOR_MAX

_LIMITS = Limits()
# For the document; it is checked by itself, since a pattern would be a slow way to look for it.
NO_NUL = r"^[^\u0000]*$"


def without_nul(value: str) -> str:
    """The text, if PostgreSQL's type `text` can hold it. Raises PydanticCustomError."""
    if "\x00" in value:
        raise PydanticCustomError("nul_character", "must not contain U+0000")
    return value


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
    """Says of a type that null is accepted as well, which its schema does not show."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "anyOf": [handler(schema), {"type": "null"}],
            "description": "null is the same as {}. A number must be the same decimal value after a"
            " conversion to a double (IEEE 754): send others as strings.",
        }


# A named type is a component of its own, after which generated clients name a class.
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
    """Metadata as it is stored: compact JSON, byte for byte what will be answered."""
    return orjson.dumps(metadata).decode() if metadata else "{}"
