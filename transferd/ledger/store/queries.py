"""The named queries of the SQL files, as PostgreSQL gets them."""

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib import resources
from operator import itemgetter

from transferd.ledger.store.numbers import NAMES_IN_SQL

# Texts to keep. There may be thousands of ledgers, and a text takes up to 8 KB; a text that was
# dropped is made again in some microseconds.
_TEXTS_MAX = 4096
# Queries with which others begin; these name them in braces.
_FRAGMENTS = ("group_rows", "wallets_now", "holds_now", "withheld")
# A parameter that has a name in place of a number.
_PARAMETER = re.compile(r"\$([a-z_]+)")


@lru_cache(maxsize=_TEXTS_MAX)
def query(schema: str, name: str, file: str = "queries.sql") -> str:
    """The query `name` of `file`, for the ledger in `schema`."""
    return templates(file)[name].replace("{ledger}", schema)


@cache
def values(name: str) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    """Takes the values that a query's parameters name, of which there are two or more, in order."""
    return itemgetter(*_parameters(_texts("queries.sql")[name]))


@cache
def templates(file: str) -> dict[str, str]:
    """Name -> SQL of every query in `file`, complete except for the schema of the ledger."""
    named = {}
    for name, text in _texts(file).items():
        sql = text
        # From the longest on, because a name may begin with another one.
        numbers = {each: n for n, each in enumerate(_parameters(text), start=1)}
        for each in sorted(numbers, key=len, reverse=True):
            sql = sql.replace(f"${each}", f"${numbers[each]}")
        for each, number in NAMES_IN_SQL.items():
            sql = sql.replace(each, number)
        named[name] = sql.replace("{skip_locked}", "")
        if "{skip_locked}" in sql:
            named[f"{name}_skipping"] = sql.replace("{skip_locked}", "SKIP LOCKED")
    return named


@cache
def _texts(file: str) -> dict[str, str]:
    """Name -> text of every query in `file`, with its fragments."""
    text = resources.files("transferd.ledger").joinpath(file).read_text()
    parts = (part.partition("\n") for part in text.split("-- name: ")[1:])
    texts = {name.strip(): sql.strip().rstrip(";") for name, _, sql in parts}
    for part in _FRAGMENTS:
        for name, sql in texts.items():
            texts[name] = sql.replace(f"{{{part}}}", texts.get(part, ""))
    return texts


def _parameters(text: str) -> tuple[str, ...]:
    """The names of a query's parameters, in the order of their numbers."""
    return tuple(dict.fromkeys(_PARAMETER.findall(text)))
