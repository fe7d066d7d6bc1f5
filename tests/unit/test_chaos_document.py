"""docs/reliability.md names every fault and every protection that `make chaos` knows."""

import re

from tests.fault.chaos.faults import FAULTS
from tests.fault.chaos.protections import PROTECTIONS
from tests.support.project import ROOT


def test_every_fault_is_documented() -> None:
    document = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    table = document.partition("| `--fault` |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()[2:]]
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
    document = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    table = document.partition("| `--without` |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in table.splitlines()[2:]]
    told = {name: (removed, fault) for name, removed, fault, _ in rows}
    assert told == {
        f"`{each.name}`": (each.removed, f"`{each.fault}`") for each in PROTECTIONS.values()
    }
    # What was found is named by the kinds that were expected.
    for row in rows:
        assert any(kind in row[3] for kind in PROTECTIONS[row[0].strip("`")].kinds), row
