"""Opaque cursors of keyset pages: which list, with which filters, and where the next page starts.

A cursor that is used with other filters, or for another wallet, would leave rows out of the list.
"""

import base64
import binascii
import hashlib
import re

import orjson

from transferd.domain.money import BALANCE_MINOR_MAX
from transferd.web.fields import is_id
from transferd.web.problems import Problem
from transferd.web.schemas import ListQuery

# At most 19 digits: Python refuses to read very long ones.
_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")
# Finds mistakes. It is no protection: a cursor gives access to nothing.
_DIGEST_BYTES = 6


def scope_of(list_name: str, query: ListQuery, *ids: str) -> str:
    """What cursors of a list belong to: the ids in its address, and its filters.

    The size of a page may change from page to page. Filters that are not given are left out, so
    that a later version, which has more filters, reads the cursors of this one.
    """
    filters = query.model_dump(mode="json", exclude={"limit", "cursor"}, exclude_none=True)
    digest = hashlib.blake2b(orjson.dumps([ids, filters]), digest_size=_DIGEST_BYTES)
    return f"{list_name}.{digest.hexdigest()}"


def encode(scope: str, position: str | int) -> str:
    """A cursor for the page after `position`."""
    return base64.urlsafe_b64encode(f"{scope}:{position}".encode()).decode().rstrip("=")


def decode(scope: str, cursor: str) -> str:
    """The position. Raises Problem `cursor-invalid` for all that `encode` has not made for it."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        raise Problem("cursor-invalid") from None
    found, _, position = text.partition(":")
    if found != scope or encode(found, position) != cursor:
        raise Problem("cursor-invalid")
    return position


def decode_id(scope: str, cursor: str | None) -> str | None:
    """The id that the page lies behind; None for the first page."""
    if cursor is None:
        return None
    id = decode(scope, cursor)
    if not is_id(id):
        raise Problem("cursor-invalid")
    return id


def decode_version(scope: str, cursor: str | None) -> int | None:
    """The version that the page lies below; None for the first page."""
    if cursor is None:
        return None
    text = decode(scope, cursor)
    if _VERSION.fullmatch(text) is None or int(text) > BALANCE_MINOR_MAX:
        raise Problem("cursor-invalid")
    return int(text)
