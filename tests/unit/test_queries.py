"""The texts of queries: complete, bound to one ledger, and kept in limited number."""

import re

from transferd.domain.ledger import MAIN
from transferd.ledger.steps import Migration, ledger_migrations, migrations
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


def test_statements_of_a_migration_are_the_whole_file() -> None:
    for each in (*migrations(), *ledger_migrations()):
        statements = each.statements()
        assert " ".join(" ".join(statements).split()) == " ".join(each.sql.split()), each.name
        assert all(text.endswith(";") for text in statements)


def test_a_semicolon_in_a_text_or_a_comment_ends_no_statement() -> None:
    first = "-- a; 'b\nSELECT ';''' || \"c;\" || $$d;$$ || $e$f;$$$e$;"
    assert Migration("", f"{first}\n{first} SELECT 1;\n", "").statements() == [
        first,
        first,
        "SELECT 1;",
    ]


def test_the_last_statement_needs_no_semicolon() -> None:
    assert Migration("", "SELECT 1; SELECT 2\n", "").statements() == ["SELECT 1;", "SELECT 2"]
