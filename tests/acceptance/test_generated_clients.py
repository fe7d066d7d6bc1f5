"""Clients that common tools generate from the OpenAPI document do the main job.

The programs are in `tests/clients`. Each is type-checked together with the generated code.
"""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.openapi_tools import CLIENTS, NODE_TOOLS, node, node_tool, python_tool
from tests.support.project import ROOT
from tests.support.truth import faults_in

# Kept for the next run. mypy checks again what has changed, and what depends on it.
_TYPES = ROOT / ".mypy_cache" / "clients"


@pytest.fixture
async def document(api: Api, tmp_path: Path) -> Path:
    """The served document."""
    file = tmp_path / "openapi.json"
    file.write_bytes((await api.get("/openapi.json")).body)
    return file


def copy_files(folder: Path, *names: str) -> None:
    """Copy these files of `tests/clients` into the folder."""
    for name in names:
        shutil.copy(CLIENTS / name, folder)


async def test_a_python_client_does_the_main_job(
    api: Api, document: Path, database: Database, tmp_path: Path
) -> None:
    copy_files(tmp_path, "main_job.py", "mypy.ini")
    client = tmp_path / "transferd_client"
    code, output = await python_tool(
        "openapi-python-client",
        *("generate", "--path", document, "--meta", "none", "--output-path", client),
        "--fail-on-warning",
    )
    assert code == 0, output
    program = tmp_path / "main_job.py"
    code, output = await python_tool(
        "mypy",
        *("--config-file", tmp_path / "mypy.ini", "--cache-dir", _TYPES),
        *(program, client),
    )
    assert code == 0, output
    code, output = await python_tool("python", program, api.url)
    assert (code, output) == (0, "The main job is done.\n")
    assert await faults_in(database) == []


async def test_a_typescript_client_does_the_main_job(
    api: Api, document: Path, database: Database, tmp_path: Path
) -> None:
    copy_files(tmp_path, "main_job.ts", "tsconfig.json", "package.json")
    (tmp_path / "node_modules").symlink_to(NODE_TOOLS)
    code, output = await node_tool(
        "openapi-typescript", document, "--output", tmp_path / "transferd.ts"
    )
    assert code == 0, output
    code, output = await node_tool("tsc", "--project", tmp_path)
    assert code == 0, output
    code, output = await node(tmp_path / "main_job.js", api.url)
    assert (code, output) == (0, "The main job is done.\n")
    assert await faults_in(database) == []
