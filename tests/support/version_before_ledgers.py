"""Replicas with the statements of the version before ledgers.

The code that calls them is the present one. So a statement that has changed since that version is
the present one here, with the old names of the tables.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.store import database
from transferd.ledger.store.queries import query

_FILE = Path(__file__).with_suffix(".sql")
# Statements that only a worker runs. Workers stop before the migration.
OF_WORKERS = frozenset(
    {
        *("webhooks_version", "insert_deliveries", "read_waiting", "endpoints_waiting"),
        *(
            "record_deliveries",
            "carry_deliveries",
            "waiting_deliveries",
            "endpoints_with_deliveries",
        ),
        *("prune_deliveries", "read_outbox", "take_unaddressed_letters", "insert_dead_letters"),
        *("fold_dead_letters", "list_dead_letters", "count_dead_letters", "redrive_dead_letters"),
        "delete_dead_letters",
    }
)


def statements_before() -> dict[str, str]:
    """Name -> SQL of every statement about a table that has moved."""
    found = re.findall(r"^-- name: (\w+)\n(.*?);$", _FILE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def use_statements_before(patch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Let replicas run these; returns a function that returns the names of those that have run."""
    texts, used = statements_before(), set[str]()

    def before(schema: str, name: str, file: str = "queries.sql") -> str:
        if file != "queries.sql" or name not in texts:
            return query(schema, name, file)
        used.add(name)
        return texts[name]

    async def assume(*_: object) -> None:
        """The version before does not ask for the migration."""

    async def none(_: object) -> list[str]:
        """The version before does not ask for migrations of a ledger."""
        return []

    async def main(*_: object) -> Ledger:
        """The version before knows one ledger."""
        return MAIN

    patch.setattr(database, "query", before)
    patch.setattr("transferd.service.assert_migrated", assume)
    patch.setattr("transferd.service.read_ledger", main)
    patch.setattr("transferd.actors.ledgers.absent_from", none)
    return lambda: used
