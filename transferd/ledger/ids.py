"""Ids: UUIDv7 (RFC 9562 section 5.7) whose 12 `rand_a` bits carry the number of the ledger."""

import random
import time

# One ledger today. Each further ledger is a schema of its own; an id contains its number.
LEDGERS = ("ledger_00",)


def new_id(ledger: int = 0) -> str:
    """A new id in canonical lower-case form, growing with time to the millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    # The operating system seeds it in each process. An id has to be unique, not secret.
    tail = 0x8000_0000_0000_0000 | random.getrandbits(62)
    digits = f"{(milliseconds << 16 | 0x7000 | ledger) << 64 | tail:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def id_at(time_s: float) -> str:
    """The smallest id that is made at this time (seconds since 1970) or later."""
    milliseconds = max(0, int(time_s * 1000))
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7000-8000-000000000000"


def ledger_of(id: str) -> str:
    """The schema that holds the wallet or transfer `id`.

    An id without the number of a ledger has no row; a query for it goes to the first ledger.
    """
    number = int(id[15:18], 16)
    return LEDGERS[number] if id[14] == "7" and number < len(LEDGERS) else LEDGERS[0]
