"""Ids: UUIDv7 (RFC 9562 section 5.7) whose 12 `rand_a` bits carry the number of the ledger."""

import os
import time

# One ledger today. Further ones are schemas of their own; an id says where its row lives.
LEDGERS = ("ledger_00",)


def new_id(ledger: int = 0) -> str:
    """A new id in canonical lower-case form, growing with time to the millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    digits = f"{(milliseconds << 80) | (0x7000 | ledger) << 64 | 1 << 63 | tail:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def ledger_of(id: str) -> str:
    """The schema that holds the wallet or transfer `id`.

    An id that no ledger of ours has made belongs nowhere; it is looked for, in vain, in the first.
    """
    number = int(id[15:18], 16)
    return LEDGERS[number] if id[14] == "7" and number < len(LEDGERS) else LEDGERS[0]
