"""A full disk of PostgreSQL, simulated by a proxy that recognizes inserts and COMMITs.

The proxy replaces the write by a statement that raises the error in the server, so the transaction
fails for the server as well.
"""

import re
from collections.abc import Iterator
from enum import Enum

# Each message begins with its type and length, except for the first one of a connection.
_HEAD_BYTES = 5
_COMMIT = b"COMMIT\0"


class Full(Enum):
    """The step of a transaction that fails for lack of space."""

    INSERT = "the statement that inserts"
    COMMIT = "the COMMIT"


def _query(sql: str) -> bytes:
    body = sql.encode() + b"\0"
    return b"Q" + (len(body) + 4).to_bytes(4, "big") + body


_FAIL = _query(
    "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100',"
    " MESSAGE = 'could not extend file: No space left on device'; END $$"
)


class Statements:
    """The prepared inserts of one connection, by name."""

    def __init__(self) -> None:
        self._inserting: set[bytes] = set()

    def note(self, data: bytes) -> None:
        """Record the inserts that these messages prepare."""
        if b"INSERT" not in data:
            return
        for kind, body in _messages(data):
            if kind == b"P":
                name, _, rest = body.partition(b"\0")
                if re.search(rb"\bINSERT INTO\b", rest.partition(b"\0")[0]):
                    self._inserting.add(name)

    def failing(self, data: bytes, step: Full) -> bytes | None:
        """The replacement if these are the complete messages of this step; otherwise None."""
        for kind, body in _messages(data):
            if step is Full.COMMIT and kind == b"Q" and body == _COMMIT:
                return _FAIL
            # A Bind message contains the name of the portal, then the name of the statement.
            if step is Full.INSERT and kind == b"B" and body.split(b"\0", 2)[1] in self._inserting:
                return _FAIL
        return None


def _messages(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of each message; none if the last message is incomplete."""
    found, position = [], 0
    while position + _HEAD_BYTES <= len(data):
        end = position + 1 + int.from_bytes(data[position + 1 : position + _HEAD_BYTES], "big")
        if end < position + _HEAD_BYTES:
            return
        found.append((data[position : position + 1], data[position + _HEAD_BYTES : end]))
        position = end
    if position == len(data):
        yield from found
