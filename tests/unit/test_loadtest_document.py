"""docs/load-testing.md describes every scenario, shape, persona, fault, exit code and option."""

import re
import subprocess
import sys

import pytest

from loadtest import verdict
from loadtest.proof import violations
from loadtest.scenarios import SCENARIOS
from loadtest.shapes import SHAPES
from tests.support.project import ROOT


@pytest.fixture(scope="module")
def document() -> str:
    return (ROOT / "docs/load-testing.md").read_text(encoding="utf-8")


def first_column(document: str, heading: str) -> set[str]:
    """The names in the first column of the table that begins with this heading."""
    table = document.partition(f"| {heading} |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`?([\w-]+)`?", cell)}


def test_it_has_every_scenario_shape_and_persona(document: str) -> None:
    assert first_column(document, "`--scenario`") == set(SCENARIOS)
    assert first_column(document, "`--shape`") == set(SHAPES)
    personas = {name for each in SCENARIOS.values() for name in each.weights}
    assert first_column(document, "persona") == personas


def test_it_has_every_fault_and_exit_code(document: str) -> None:
    kinds = {value for name, value in vars(violations).items() if name.isupper()}
    assert first_column(document, "found") == {kind for kind in kinds if isinstance(kind, str)}
    codes = (verdict.PASSED, verdict.NOT_RUN, verdict.VIOLATED, verdict.LEVEL_BROKEN)
    assert first_column(document, "exit code") == {str(code) for code in codes}


def test_every_option_exists(document: str) -> None:
    listed = [
        subprocess.run(
            [sys.executable, *words], check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
        for words in (
            ("-m", "loadtest", "--options"),
            ("-m", "loadtest", "--help"),
            ("-m", "locust", "--help"),
        )
    ]
    known = set(re.findall(r"--[a-z][\w-]+", "".join(listed)))
    assert "--think" in known
    others = {"--build", "--client", "--scope"}  # of docker compose and of transferd keys
    assert set(re.findall(r"--[a-z][\w-]+", document)) - others - {"--help"} <= known


def test_every_variable_of_make_is_used(document: str) -> None:
    target = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nloadtest:")[2]
    used = set(re.findall(r"\$\((?:if \$\()?([A-Z]+)\)", target.partition("\n\n")[0]))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"make loadtest ?(.*)", document + readme))
    assert {word for words in named for word in re.findall(r"\b([A-Z]+)=", words)} <= used
