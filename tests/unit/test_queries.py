"""The texts of queries: complete, bound to one ledger, and kept in limited number."""

import re

from transferd.domain.ledger import MAIN
from transferd.ledger.store.queries import query, templates

_OTHER = "ledger_07"


def test_a_query_names_the_schema_of_its_ledger() -> None:
    own, other = (query(schema, "read_currencies") for schema in (MAIN.schema, _OTHER))
    assert "FROM ledger_00.currencies" in own
    assert own.replace(MAIN.schema, _OTHER) == other


def test_a_query_is_complete() -> None:
    for file in ("queries.sql", "shared.sql", "audit.sql", "citus.sql"):
        for name in templates(file):
            # `lock_shared` gets the id of a wallet at each call.
            text = query(_OTHER, name, file).replace("{id}", "")
            assert not re.search(r"\{[a-z_]+\}|\$[a-z]", text), name


def test_texts_are_kept_in_limited_number() -> None:
    kept_max = query.cache_info().maxsize
    assert kept_max is not None
    for number in range(kept_max + 10):
        query(f"ledger_{number:02d}", "outbox_has_rows")
    assert query.cache_info().currsize == kept_max
