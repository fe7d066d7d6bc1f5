"""Opaque cursors of keyset pages: the list, its filters, and the position of the next page.

A cursor that is used with other filters, for another wallet, or in another ledger, would leave rows
out of the list.
"""

import base64
import binascii
import hashlib
import re

import orjson

from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.money import BALANCE_MINOR_MAX
from transferd.web.fields import is_id
from transferd.web.problems import Problem
from transferd.web.schemas import ListQuery

# At most 19 digits: Python refuses to parse very long numbers.
_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")
# Enough to detect mistakes. It protects nothing, because a cursor gives no access.
_DIGEST_BYTES = 6


def scope_of(ledger: Ledger, list_name: str, query: ListQuery, *ids: str) -> str:
    """The scope of the cursors of a list: its ledger, the ids in its path, and its filters.

    The size of a page may change from page to page. Filters that are not given are left out, so
    that a later version, which has more filters, reads the cursors of this one.
    """
    filters = query.model_dump(mode="json", exclude={"limit", "cursor"}, exclude_none=True)
    parts: list[object] = [ids, filters]
    if ledger.number != MAIN.number:
        # Cursors of main have no number, as in the version without ledgers.
        parts.append(ledger.number)
    digest = hashlib.blake2b(orjson.dumps(parts), digest_size=_DIGEST_BYTES)
    return f"{list_name}.{digest.hexdigest()}"


def encode(scope: str, position: str | int) -> str:
    """A cursor for the page after `position`."""
    return base64.urlsafe_b64encode(f"{scope}:{position}".encode()).decode().rstrip("=")


def decode(scope: str, cursor: str) -> str:
    """The position. Raises Problem `cursor-invalid` for text not made by `encode` for the scope."""
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
