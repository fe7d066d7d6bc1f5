"""Ledgers: closed books."""

import re
from typing import NamedTuple

# Also a word of routing keys: no dot, `#` or `*`. Database and settings have the same rule.
NAME = re.compile("[a-z][a-z0-9-]{0,39}")


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
    """Whether a ledger can have this name."""
    return NAME.fullmatch(name) is not None
