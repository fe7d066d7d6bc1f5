"""Opaque cursors of keyset pages: which list, and where the next page starts."""

import base64
import binascii
import re

from transferd.domain.money import BALANCE_MINOR_MAX
from transferd.web.fields import is_id
from transferd.web.problems import Problem

# At most 19 digits: Python refuses to read very long ones.
_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")


def encode(list_name: str, position: str | int) -> str:
    """A cursor for the page after `position`."""
    return base64.urlsafe_b64encode(f"{list_name}:{position}".encode()).decode().rstrip("=")


def decode(list_name: str, cursor: str) -> str:
    """The position. Raises Problem `cursor-invalid` for anything `encode` has not made."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        raise Problem("cursor-invalid") from None
    name, _, position = text.partition(":")
    if name != list_name or encode(name, position) != cursor:
        raise Problem("cursor-invalid")
    return position


def decode_id(list_name: str, cursor: str | None) -> str | None:
    """The id that the page lies behind; None for the first page."""
    if cursor is None:
        return None
    id = decode(list_name, cursor)
    if not is_id(id):
        raise Problem("cursor-invalid")
    return id


def decode_version(list_name: str, cursor: str | None) -> int | None:
    """The version that the page lies below; None for the first page."""
    if cursor is None:
        return None
    text = decode(list_name, cursor)
    if _VERSION.fullmatch(text) is None or int(text) > BALANCE_MINOR_MAX:
        raise Problem("cursor-invalid")
    return int(text)
