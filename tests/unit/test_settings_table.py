"""The table of settings in docs/configuration.md agrees with the code."""

from typing import Literal

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from tests.support.settings_table import BEGIN, DOCUMENT, END, configuration_table, with_table
from transferd.config import Settings


class Knobs(BaseSettings):
    """Settings of another program."""

    model_config = SettingsConfigDict(env_prefix="TEAPOT_")

    strength: int = Field(3, description="Leaves per cup.")
    lid: bool = Field(True, description="Leave open | shut.")
    sort: Literal["green", "black"] = Field("green", description="What is in it.")
    url: str | None = Field(None, description="Where.")


def test_the_table_is_up_to_date() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(document, configuration_table()) == document, "run `make docs`"


def test_every_setting_has_a_row_with_its_meaning() -> None:
    rows = configuration_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for name, row in zip(Settings.model_fields, rows, strict=True):
        variable, default, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        assert variable == f"`TRANSFERD_{name.upper()}`"
        assert default
        assert meaning.endswith("."), f"{variable} does not say what it means"


def test_a_row_shows_default_and_choices() -> None:
    assert configuration_table(Knobs).splitlines() == [
        "| variable | default | meaning |",
        "|---|---|---|",
        "| `TEAPOT_STRENGTH` | `3` | Leaves per cup. |",
        "| `TEAPOT_LID` | `true` | Leave open \\| shut. |",
        "| `TEAPOT_SORT` | `green` | What is in it. One of `green`, `black`. |",
        "| `TEAPOT_URL` | none | Where. |",
    ]


def test_an_old_table_is_replaced_and_the_text_around_it_stays() -> None:
    old = f"before\n{BEGIN}\n| old |\n{END}\nafter\n"
    assert with_table(old, "| \\new |") == f"before\n{BEGIN}\n\n| \\new |\n\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{BEGIN}{BEGIN}{END}"])
def test_a_text_without_the_markers_of_the_table_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        with_table(text, "| new |")
