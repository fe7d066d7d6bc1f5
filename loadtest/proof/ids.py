"""Ids in texts, and the ledger to which each of them belongs."""

import re

# The ids of the service are UUIDs of version 7, whose next three digits are the ledger's number.
_ID = re.compile(
    rb"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-7([0-9a-f]{3})-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)


def ledger_number(id: str) -> int:
    """The number of the ledger of an id."""
    return int(id[15:18], 16)


def foreign_ids(text: bytes, number: int) -> list[str]:
    """The ids in a text that belong to another ledger than that with the number, once each."""
    own = b"%03x" % number
    found = (match[0].decode() for match in _ID.finditer(text) if match[1] != own)
    return list(dict.fromkeys(found))
