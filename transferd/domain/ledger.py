"""Ledgers: closed books."""

import re
from typing import NamedTuple

# A name begins routing keys of AMQP, in which dots separate words, and * and # are patterns.
LEDGER_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class Ledger(NamedTuple):
    """Closed books: no transaction, reference or query goes from one ledger to another.

    `number` (0 to 4095) is in the ids of the ledger. `schema` has all of its tables in PostgreSQL.
    What the cache holds of an earlier generation is not used.
    """

    number: int
    name: str
    schema: str
    cache_generation: int = 0


# The first ledger, which every installation has.
MAIN = Ledger(0, "main", "ledger_00")


def is_ledger_name(name: str) -> bool:
    """Whether a ledger may have this name: up to 40 lower-case letters, digits and hyphens."""
    return LEDGER_NAME.fullmatch(name) is not None
