"""Finds what a JSON parser changes silently: repeated members and rounded numbers.

It runs after the validation, so the body is known to be JSON of the right shape.
"""

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from itertools import islice

import orjson

from transferd.config import Limits
from transferd.web.batch_schemas import NewBatch
from transferd.web.schemas import Body

# Decimal numbers with as many digits survive a conversion to a double and back (DBL_DIG of C), if
# the double is neither infinite nor subnormal. One character more, for the point.
_SURELY_EXACT_CHARS = sys.float_info.dig + 1


class Fault(Enum):
    """The code and the message of an error entry."""

    REPEATED = ("repeated", "may be given only once")
    NUMBER_INEXACT = (
        "number_inexact",
        "would be rounded by readers that use doubles (IEEE 754): send it as a string",
    )
    NEGATIVE_ZERO = ("negative_zero", "many readers drop this sign: send 0, or a string")


def faults_of(raw: bytes, body: Body, *, faults_max: int) -> list[tuple[str, Fault]]:
    """The first faults of a validated body, each with its JSON pointer.

    Most bodies are known to have none by counting: each member has one colon.
    """
    if _is_surely_exact(body, raw.count(b":")):
        return []
    faults: _Faults = _DECODER.decode(raw.decode()) or _Faults()
    # Numbers outside of metadata are integers, which the validation has checked.
    return [
        (pointer, fault)
        for pointer, fault in faults[:faults_max]
        if fault is Fault.REPEATED or "/metadata/" in pointer
    ]


def _is_surely_exact(body: Body, colons: int) -> bool:
    """Whether there is no more than one colon for each member, and no number to look at.

    A repeated member has a colon in the text and no place in the model. A colon in a string is
    counted as well, and means only that the text has to be read.
    """
    for item in (body, *body.transfers) if isinstance(body, NewBatch) else (body,):
        colons -= len(item.model_fields_set)
        if metadata := getattr(item, "metadata", None):
            colons -= len(metadata)
            for value in metadata.values():
                if type(value) is float or value == 0:
                    return False
    return colons == 0


def _is_exact(text: str) -> bool:
    """Whether the shortest decimal number for the double, which is stored, has the same value."""
    number = float(text)
    if len(text) <= _SURELY_EXACT_CHARS and (
        sys.float_info.min <= abs(number) <= sys.float_info.max
    ):
        return True
    if abs(number) > sys.float_info.max:
        return False
    if number == 0:
        return not text.lower().partition("e")[0].strip("-0.")
    stored = orjson.dumps(number).decode()
    return text == stored or Decimal(text) == Decimal(stored)


def _read_float(text: str) -> Fault | None:
    return None if _is_exact(text) else Fault.NUMBER_INEXACT


def _read_int(text: str) -> Fault | None:
    return Fault.NEGATIVE_ZERO if text == "-0" else None


class _Faults(list[tuple[str, Fault]]):
    """The faults inside an object, with pointers that begin there."""


def _read_object(members: list[tuple[str, object]]) -> _Faults | None:
    """The first faults of an object, None if there are none; nothing else is kept.

    Repeated members come first, so that faults inside cannot push them out.
    """
    found = _Faults()
    if len(dict(members)) < len(members):
        names = set()
        for name, _ in members:
            if name in names:
                found.append((pointer_step(name), Fault.REPEATED))
            names.add(name)
        del found[_OBJECT_FAULTS_MAX:]
    for name, value in members:
        # Most members need no second look.
        if value.__class__ in _WITH_FAULTS:
            inside = ((pointer_step(name) + pointer, fault) for pointer, fault in _faults_in(value))
            found += islice(inside, _OBJECT_FAULTS_MAX - len(found))
    return found or None


def pointer_step(name: object) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return "/" + str(name).replace("~", "~0").replace("/", "~1")


def _faults_in(value: object) -> Iterator[tuple[str, Fault]]:
    match value:
        case Fault():
            yield "", value
        case _Faults():
            yield from value
        case list():
            for index, item in enumerate(value):
                for pointer, fault in _faults_in(item):
                    yield f"/{index}{pointer}", fault


_WITH_FAULTS = frozenset({Fault, _Faults, list})
# More are not shown.
_OBJECT_FAULTS_MAX = Limits().field_errors_max
# It makes a value of its faults: a large tree would keep the garbage collector busy.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_read_object, parse_float=_read_float, parse_int=_read_int
)
