"""Each protection that docs/security.md claims is shown by a test that exists."""

import re

from tests.support.project import ROOT


def test_every_test_that_is_named_exists() -> None:
    document = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", document))
    assert len(named) > 40
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert named - set(re.findall(r"def (test_\w+)\(", code)) == set()


def test_every_threat_has_its_test() -> None:
    document = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    table = document.partition("| threat |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert len(rows) > 20
    assert [row for row in rows if "`test_" not in row.rsplit("|", 2)[1]] == []
