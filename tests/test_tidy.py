"""The rules of the project that neither ruff nor import-linter can check."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.project import PACKAGE, ROOT

# A function fits a screen; a file has one noun. The table of limits has a line or more for each.
_FUNCTION_LINES_MAX = 60
_FILE_LINES_MAX = 350
_TABLE = PACKAGE / "limits.py"


def sources(*folders: Path) -> dict[Path, ast.Module]:
    """Every Python file below these folders, parsed."""
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def test_files_and_functions_are_short() -> None:
    for file, tree in sources(PACKAGE, ROOT / "loadtest").items():
        lines = file.read_text(encoding="utf-8").count("\n")
        assert lines <= _FILE_LINES_MAX or file == _TABLE, file
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                assert lines <= _FUNCTION_LINES_MAX, f"{file}: {node.name} has {lines} lines"


def test_the_domain_reads_no_clock_and_awaits_nothing() -> None:
    # Modules that it must not import are a contract of import-linter.
    for file in (PACKAGE / "domain").rglob("*.py"):
        code = file.read_text(encoding="utf-8")
        assert not re.search(r"\.(now|utcnow|today)\(|\basync def\b|\bawait ", code), file


def test_no_test_sleeps_for_a_fixed_time() -> None:
    # A tenth of a second is a guess about how fast the machine is; tests wait for conditions.
    for file in (ROOT / "tests").rglob("*.py"):
        code = file.read_text(encoding="utf-8")
        assert not re.search(r"\bsleep\((delay=)?(0?\.[1-9]|[1-9])", code), file


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in map(Requirement, project["dependencies"] + extras):
        pinned = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), f"{requirement} is pinned to {pinned}"


@pytest.mark.parametrize("file", ["queries.sql", "shared.sql", "audit.sql", "citus.sql"])
def test_every_query_is_explained_and_used(file: str) -> None:
    words = set[str]()
    for tree in sources(PACKAGE / "ledger").values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # The audit calls `NAME_page` for each of its steps.
                words |= {node.value, f"{node.value}_page"}
    text = (PACKAGE / "ledger" / file).read_text(encoding="utf-8")
    queries = re.findall(r"^-- name: (\w+)\n(.*?)(?=^-- name:|\Z)", text, re.MULTILINE | re.DOTALL)
    names = [name for name, _ in queries]
    assert len(names) == text.count("-- name:") == len(set(names))
    assert set(names) <= words
    for name, query in queries:
        assert re.match(r"-- *\w.*\n(--.*\n)*\W*([A-Z]|(group_rows|\w+_now)})", query), (
            f"{name} needs a reason, then its SQL"
        )
