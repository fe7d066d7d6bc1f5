"""The table of settings in docs/configuration.md, which `make docs` writes from `Settings`."""

import re
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from tests.support.project import ROOT
from transferd.config import Settings

DOCUMENT = ROOT / "docs" / "configuration.md"
BEGIN = "<!-- configuration: made by `make docs` -->"
END = "<!-- end of configuration -->"


def configuration_table(settings: type[BaseSettings] = Settings) -> str:
    """One row per setting: its environment variable, its default and its meaning."""
    prefix = settings.model_config.get("env_prefix", "")
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        variable = f"{prefix}{name}".upper()
        rows.append(f"| `{variable}` | {_default(field)} | {_meaning(field)} |")
    return "\n".join(rows)


def with_table(markdown: str, table: str) -> str:
    """The text with `table` between the two markers. ValueError unless each occurs once."""
    if markdown.count(BEGIN) != 1 or markdown.count(END) != 1:
        raise ValueError(f"the text must contain {BEGIN} and {END}, each once")
    between = re.compile(f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})", re.DOTALL)
    return between.sub(lambda _: f"\n\n{table}\n\n", markdown)


def _default(field: FieldInfo) -> str:
    match field.default:
        case None:
            return "none"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case value:
            return f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    meaning = (field.description or "").strip()
    if get_origin(field.annotation) is Literal:
        choices = ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
        meaning += f" One of {choices}."
    return meaning.replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), configuration_table()))
