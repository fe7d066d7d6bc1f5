"""Replaces parts of the service, and fails if the code no longer matches."""

from collections.abc import Callable
from typing import Any

from transferd.ledger.store import queries


def replace(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a public attribute of a class or module by `make` of the original."""
    found = vars(owner).get(name)
    assert found is not None, f"{owner} no longer defines {name}"
    assert not name.startswith("_"), f"{name} of {owner} is private"
    setattr(owner, name, make(found))


def reword(name: str, old: str, new: str) -> None:
    """Replace words of a named query, which must contain them exactly once."""
    # The process reads queries once, so this changes the query for all callers and ledgers.
    named = queries.templates("queries.sql")
    assert named[name].count(old) == 1, f"the query {name} no longer contains {old!r}"
    named[name] = named[name].replace(old, new)
    queries.query.cache_clear()
