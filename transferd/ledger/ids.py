"""Ids: UUIDv7 (RFC 9562 section 5.7) whose 12 `rand_a` bits carry the number of the ledger."""

import time

from transferd.digits import random_digits
from transferd.domain.ledger import Ledger

# RFC 9562 section 4.1: the highest two bits of this digit are 10.
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def new_id(ledger: Ledger) -> str:
    """A new id in canonical lower-case form, growing with time to the millisecond."""
    time_ms = f"{time.time_ns() // 1_000_000:012x}"
    random = random_digits(16)
    version = f"7{ledger.number:03x}"
    variant = _VARIANT[random[0]]
    return f"{time_ms[:8]}-{time_ms[8:]}-{version}-{variant}{random[1:4]}-{random[4:]}"


def id_at(time_s: float) -> str:
    """The smallest id that is made at this time (seconds since 1970) or later, in any ledger."""
    milliseconds = max(0, int(time_s * 1000))
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7000-8000-000000000000"
