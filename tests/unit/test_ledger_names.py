"""The names of ledgers: one rule in the database, in the settings and in the code."""

from importlib import resources

import pytest

from transferd.config import Settings
from transferd.domain.ledger import MAIN, NAME, is_ledger_name


def test_the_database_and_the_settings_have_the_same_rule() -> None:
    [metadata] = Settings.model_fields["ledger"].metadata
    assert metadata.pattern == f"^{NAME.pattern}$"
    migration = resources.files("transferd.ledger").joinpath("migrations/0007_ledgers.sql")
    assert f"CHECK (name ~ '^{NAME.pattern}$')" in migration.read_text()


@pytest.mark.parametrize("name", [MAIN.name, "a", "shop-7", "a" * 40])
def test_a_name_is_one_word_of_a_routing_key(name: str) -> None:
    assert is_ledger_name(name)


@pytest.mark.parametrize(
    "name", ["", "A", "7up", "-a", "a.b", "a*", "a#", "a b", "a_b", "ä", "a\n", "a" * 41]
)
def test_other_names_are_refused(name: str) -> None:
    assert not is_ledger_name(name)
