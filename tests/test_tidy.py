"""The house rules that a program can check, each with a planted fault which it has to find."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.tidy import (
    PACKAGE,
    ROOT,
    Source,
    back_doors,
    driver_imports,
    impurities,
    lint_imports,
    make_targets,
    pin_faults,
    query_faults,
    shell_commands,
    skips_and_sleeps,
    sources,
    too_long,
    untrue_commands,
    words_used,
)
from transferd.cli import main


def planted(code: str, module: str = "transferd.web.planted") -> Source:
    return Source(Path("planted.py"), module, code)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def contracted_modules() -> list[str]:
    """Every module that the import contracts name and that has to exist, parents first."""
    names = {"transferd"}
    for contract in project()["tool"]["importlinter"]["contracts"]:
        rows = [re.split(r"\s*\|\s*", row) for row in contract.get("layers", [])]
        names |= {f"transferd.{name}" for row in rows for name in row if name.isidentifier()}
        names |= set(contract.get("allowed_importers", []))
    return sorted(names)


# The project itself


def test_imports_point_down_only() -> None:
    report = lint_imports(ROOT)
    assert report.returncode == 0, report.stdout + report.stderr


def test_only_the_store_and_the_migrations_know_the_driver() -> None:
    assert [fault for source in sources(PACKAGE) for fault in driver_imports(source)] == []


def test_no_import_hides_behind_type_checking() -> None:
    assert [fault for source in sources(PACKAGE) for fault in back_doors(source)] == []


def test_files_and_functions_are_small() -> None:
    code = sources(PACKAGE, ROOT / "loadtest")
    assert [fault for source in code for fault in too_long(source)] == []


def test_the_readme_names_only_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert "transferd" in {word for command in shell_commands(readme) for word in command}
    assert untrue_commands(readme, targets, main) == []


def test_every_dependency_is_pinned() -> None:
    metadata = project()["project"]
    extras = [each for extra in metadata["optional-dependencies"].values() for each in extra]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert pin_faults(constraints, metadata["dependencies"] + extras) == []


def test_no_test_skips_or_sleeps() -> None:
    tests = sources(ROOT / "tests")
    assert [fault for source in tests for fault in skips_and_sleeps(source)] == []


def test_the_domain_is_pure() -> None:
    domain = sources(PACKAGE / "domain")
    assert domain
    assert [fault for source in domain for fault in impurities(source)] == []


def test_every_query_is_explained_and_used() -> None:
    used = {word for source in sources(PACKAGE / "ledger" / "store") for word in words_used(source)}
    queries = (PACKAGE / "ledger" / "queries.sql").read_text(encoding="utf-8")
    assert query_faults(queries, used) == []


# The checks: each finds the fault that it is there for


@pytest.mark.parametrize(
    ("module", "code", "complaint"),
    [
        ("domain.planted", "import transferd.commit", "Imports point down only BROKEN"),
        ("cache.planted", "import transferd.ledger", "Imports point down only BROKEN"),
        ("stowaway", "", "stowaway"),
        ("web.planted", "import asyncpg", "database driver BROKEN"),
        ("web.planted", "import opentelemetry", "knows OpenTelemetry"),
        (
            "domain.planted",
            "import typing\nif typing.TYPE_CHECKING:\n    import transferd.web",
            "Imports point down only BROKEN",
        ),
    ],
)
def test_an_import_that_points_up_is_found(
    tmp_path: Path, module: str, code: str, complaint: str
) -> None:
    plant_project(tmp_path)
    (tmp_path / "transferd" / f"{module.replace('.', '/')}.py").write_text(f"{code}\n")
    report = lint_imports(tmp_path)
    assert report.returncode != 0
    assert complaint in report.stdout


def test_an_import_cycle_is_found(tmp_path: Path) -> None:
    plant_project(tmp_path)
    (tmp_path / "transferd/web/one.py").write_text("import transferd.web.other\n")
    (tmp_path / "transferd/web/other.py").write_text("def late(): import transferd.web.one\n")
    report = lint_imports(tmp_path)
    assert report.returncode != 0
    assert "No import cycles inside a package BROKEN" in report.stdout


def plant_project(root: Path) -> None:
    """Empty modules in the shape of the project, which pass all contracts."""
    for name in contracted_modules():
        folder = root / name.replace(".", "/")
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (root / "transferd/ledger/store/pool.py").write_text("import asyncpg\n")
    tracing = root / "transferd/observability/tracing/__init__.py"
    tracing.write_text("import opentelemetry\n")
    assert lint_imports(root).returncode == 0


@pytest.mark.parametrize("code", ["import asyncpg", "from asyncpg.pool import Pool"])
def test_a_driver_outside_of_the_store_is_found(code: str) -> None:
    assert driver_imports(planted(code)) != []
    assert driver_imports(planted(code, "transferd.ledger.store_room")) != []
    assert driver_imports(planted(code, "transferd.ledger.store.pool")) == []


@pytest.mark.parametrize(
    "code", ["from typing import TYPE_CHECKING", "import typing as t\nif t.TYPE_CHECKING: ..."]
)
def test_a_back_door_is_found(code: str) -> None:
    assert back_doors(planted(code)) != []


def test_a_long_file_and_a_long_function_are_found(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("def fits():\n" + "    ...\n" * 59 + "\n" * 290)
    (tmp_path / "large.py").write_text("def long():\n" + "    ...\n" * 60 + "\n" * 290)
    faults = [fault for source in sources(tmp_path, root=tmp_path) for fault in too_long(source)]
    assert faults == [
        "large.py:1 has 351 lines, 350 are allowed",
        "large.py:1 long has 61 lines, 60 are allowed",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio",
        "from time import monotonic",
        "import iso4217",
        "from transferd.config import Limits",
        "import datetime as dt\ndt.datetime.now()",
        "from datetime import datetime, UTC\ndatetime.now(UTC)",
        "async def decide(): ...",
    ],
)
def test_an_impure_domain_is_found(code: str) -> None:
    assert impurities(planted(code)) != []


def test_a_pure_domain_is_left_alone() -> None:
    pure = "from datetime import datetime\nfrom transferd.domain.money import Money"
    assert impurities(planted(pure)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pytest as p\np.skip('later')",
        "from pytest import mark as m\n@m.xfail\ndef test_it(): ...",
        "from time import sleep\nsleep(0)",
        "from asyncio import sleep\nasync def wait(): await sleep(0.1)",
        "import asyncio as a\nasync def wait(): await a.sleep(delay=3)",
    ],
)
def test_a_skip_and_a_sleep_are_found(code: str) -> None:
    assert len(skips_and_sleeps(planted(code))) == 1


def test_giving_way_to_other_tasks_is_not_a_sleep() -> None:
    code = "import asyncio\nasync def wait(s): await asyncio.sleep(0); await asyncio.sleep(s)"
    assert skips_and_sleeps(planted(code)) == []


@click.group()
def program() -> None: ...


@program.command()
@click.option("--port", type=int)
def serve(port: int) -> None: ...


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ('make run ARGS="--port 1" && make check', []),
        ("transferd serve --port 1  # transferd fly", []),
        ("docker compose exec api transferd serve --help", []),
        ("make tea", ["make tea"]),
        ("$ FAST=1 .venv/bin/transferd fly\ntransferd crashed", [".venv/bin/transferd fly: fly"]),
        ("transferd serve --prot 1", ["transferd serve --prot 1: --prot"]),
    ],
)
def test_an_untrue_command_is_found(line: str, faults: list[str]) -> None:
    targets = make_targets("PYTHON := python3\nrun: .venv\n\ttrue\ncheck:\n")
    assert targets == {"run", "check"}
    assert untrue_commands(f"Text\n\n```sh\n{line}\n```\n", targets, program) == faults


@pytest.mark.parametrize(
    ("constraints", "found"),
    [
        ("# why\nclick==8.5.1\n", False),
        ("click==8.5.1 ; python_version < '3.14'\n", False),
        ("click==8.0\n", True),
        ("rich==15.0\n", True),
        ("click==8.5.1\n-e .\n", True),
        ("click==8.5.1\nrich @ file:///rich.whl\n", True),
    ],
)
def test_a_missing_pin_and_an_address_are_found(constraints: str, found: bool) -> None:
    assert bool(pin_faults(constraints, ["Click[extra]>=8.1"])) is found


@pytest.mark.parametrize(
    ("queries", "faults"),
    [
        ("-- All of them.\n\n-- name: lock\n-- In id order.\nSELECT 1;\n", []),
        ("-- name: lock\nSELECT 1;\n", ["lock does not say why it is there"]),
        ("-- name: lock\n-- Why.\n", ["lock has no SQL"]),
        ("-- name: idle\n-- Why.\nSELECT 1;\n", ["idle is used nowhere"]),
        ("-- name: lock\n-- Why.\nSELECT 1;\n" * 2, ["lock is there twice"]),
        ("SELECT 1;\n", ["SQL before the first name"]),
    ],
)
def test_a_query_without_a_reason_or_a_use_is_found(queries: str, faults: list[str]) -> None:
    assert query_faults(queries, words_used(planted("queries.lock"))) == faults
