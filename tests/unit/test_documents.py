"""The tables of the documents, and the patches of protections, agree with the code."""

import re
import subprocess
import sys

from click.testing import CliRunner

from loadtest import verdict
from loadtest.__main__ import main
from loadtest.proof import violations
from loadtest.scenarios import SCENARIOS
from loadtest.shapes import SHAPES
from tests.fault.chaos.faults import FAULTS
from tests.fault.chaos.protections import ALONE, PROTECTIONS
from tests.fault.chaos.removals import CONSTRAINTS, PATCHES
from tests.support.project import ROOT
from tests.support.settings_table import configuration_table, with_table
from transferd.config import Settings


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first column has this heading."""
    table = document.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def first_column(document: str, heading: str) -> set[str]:
    """The names in the first column of that table."""
    return {name for row in rows(document, heading) for name in re.findall(r"`?([\w-]+)`?", row[0])}


# docs/configuration.md


def test_the_table_of_settings_is_up_to_date() -> None:
    document = text_of("docs/configuration.md")
    assert with_table(document, configuration_table()) == document, "run `make docs`"
    for name, each in Settings.model_fields.items():
        assert (each.description or "").endswith("."), name


# docs/security.md


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", text_of("docs/security.md")))
    assert len(named) > 40
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert named - set(re.findall(r"def (test_\w+)\(", code)) == set()


def test_every_threat_has_its_test() -> None:
    threats = rows(text_of("docs/security.md"), "threat")
    assert len(threats) > 20
    assert [row for row in threats if "`test_" not in row[-1]] == []


# docs/reliability.md


def test_every_fault_is_documented() -> None:
    first = [row[0] for row in rows(text_of("docs/reliability.md"), "`--fault`")]
    named = {word for cell in first for word in re.findall(r"`([\w-]+)`", cell)}
    whole = {name for name in named if not name.endswith("-")}
    families = tuple(name for name in named if name.endswith("-"))
    assert whole <= set(FAULTS)
    assert {name for name in FAULTS if name not in whole and not name.startswith(families)} == set()
    # The parts and links of each family.
    parts = {name.partition("-")[2] for name in FAULTS if name.startswith(families)} - whole
    text = " ".join(first)
    assert all(part in text for part in parts if f"cut-{part}" not in whole), parts


def test_every_protection_is_documented_with_its_removal_and_its_fault() -> None:
    table = rows(text_of("docs/reliability.md"), "`--without`")
    assert {name: (removed, fault) for name, removed, fault, *_ in table} == {
        f"`{each.name}`": (each.removed, f"`{each.fault}`") for each in PROTECTIONS.values()
    }
    # The kinds that were expected name the damage that was found.
    for row in table:
        assert any(kind in row[3] for kind in PROTECTIONS[row[0].strip("`")].kinds), row


def test_every_layer_is_removed_and_each_of_two_layers_is_tried_alone() -> None:
    removed = {layer for each in PROTECTIONS.values() for layer in each.layers}
    removed |= {layer for each in ALONE.values() for layer in each.without}
    assert removed == {*PATCHES, *CONSTRAINTS}
    shared = {
        layer for each in PROTECTIONS.values() if len(each.layers) > 1 for layer in each.layers
    }
    assert {layer for each in ALONE.values() for layer in each.layers} == shared
    assert all(each.layers.isdisjoint(each.without) for each in ALONE.values())


def test_every_patch_of_a_protection_fits_the_code() -> None:
    # In a process of its own, because the patches stay.
    code = f"from tests.fault.chaos.removals import remove; remove({list(PATCHES)})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# docs/load-testing.md


def test_every_name_of_the_load_test_is_documented() -> None:
    document = text_of("docs/load-testing.md")
    assert first_column(document, "`--scenario`") == set(SCENARIOS)
    assert first_column(document, "`--shape`") == set(SHAPES)
    personas = {name for each in SCENARIOS.values() for name in each.weights}
    assert first_column(document, "persona") == personas
    kinds = {value for name, value in vars(violations).items() if name.isupper()}
    assert first_column(document, "found") == {kind for kind in kinds if isinstance(kind, str)}
    codes = (verdict.PASSED, verdict.NOT_RUN, verdict.VIOLATED, verdict.LEVEL_BROKEN)
    assert first_column(document, "exit code") == {str(code) for code in codes}


def test_every_documented_option_exists() -> None:
    listed = [
        subprocess.run(
            [sys.executable, *words], check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
        for words in (
            ("-m", "loadtest", "--options"),
            ("-m", "locust", "--help"),
        )
    ]
    listed.append(CliRunner().invoke(main, ["--help"]).output)
    known = set(re.findall(r"--[a-z][\w-]+", "".join(listed)))
    assert "--think" in known
    others = {
        "--build",
        "--client",
        "--ledger",
        "--scope",
    }  # of docker compose and of transferd keys
    documented = set(re.findall(r"--[a-z][\w-]+", text_of("docs/load-testing.md")))
    assert documented - others - {"--help"} <= known


def test_every_documented_variable_of_make_is_used() -> None:
    target = text_of("Makefile").partition("\nloadtest:")[2].partition("\n\n")[0]
    used = set(re.findall(r"\$\((?:if \$\()?([A-Z]+)\)", target))
    documents = text_of("docs/load-testing.md") + text_of("README.md")
    named = set(re.findall(r"make loadtest ?(.*)", documents))
    assert {word for words in named for word in re.findall(r"\b([A-Z]+)=", words)} <= used
