"""Fingerprints of requests: equal for equal values, however they are written in JSON."""

import hashlib
from typing import Any

import orjson

from transferd.domain.key import Fingerprint
from transferd.domain.money import AMOUNT_MINOR_MAX


class Spellings:
    """Metadata that was not sent in its canonical form: both forms as JSON."""

    __slots__ = ("as_sent", "canonical")

    def __init__(self, as_sent: str, canonical: str) -> None:
        self.as_sent = as_sent
        self.canonical = canonical


def metadata_part(metadata: dict[str, Any], as_sent: str) -> str | Spellings:
    """Metadata as a part of `fingerprint_of`; `as_sent` is its text as it is stored.

    In the canonical form the members are sorted by name (as UTF-8), and a number with the value of
    an integer is written as one. White space and escapes are gone since the body was parsed.
    """
    if not metadata:
        return as_sent
    values = {name: _canonical(value) for name, value in metadata.items()}
    canonical = orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()
    return as_sent if canonical == as_sent else Spellings(as_sent, canonical)


def fingerprint_of(*parts: object) -> Fingerprint:
    """The fingerprint of an operation and its validated input.

    Earlier versions used metadata as sent; that fingerprint is computed too where it can differ.
    Neither the parts of an operation nor their order may change: outcomes are never deleted.
    """
    try:
        return Fingerprint(_digest(orjson.dumps(parts)))
    except orjson.JSONEncodeError:
        # A part has two spellings.
        return Fingerprint(
            _digest(orjson.dumps(parts, default=lambda part: part.canonical)),
            _digest(orjson.dumps(parts, default=lambda part: part.as_sent)),
        )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _canonical(value: Any) -> Any:
    # Integers beyond these bounds are refused, so a float there has no second spelling.
    if type(value) is float and value.is_integer() and abs(value) <= AMOUNT_MINOR_MAX:
        return int(value)
    return value
