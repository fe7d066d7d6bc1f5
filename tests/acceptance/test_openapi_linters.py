"""Common linters find no error in the OpenAPI document, and one in a broken copy."""

import copy
import re
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from tests.support.api import Api
from tests.support.openapi_tools import CLIENTS, node_tool, python_tool


class Documents(NamedTuple):
    """The served document, and a copy in which two operations have one name."""

    ours: Path
    broken: Path


@pytest.fixture
async def documents(api: Api, tmp_path: Path) -> Documents:
    """Both, as files."""
    document = (await api.get("/openapi.json")).json
    broken: Any = copy.deepcopy(document)
    broken["paths"]["/users"]["get"]["operationId"] = "create_user"
    files = Documents(tmp_path / "ours.json", tmp_path / "broken.json")
    files.ours.write_bytes(orjson.dumps(document))
    files.broken.write_bytes(orjson.dumps(broken))
    return files


async def test_openapi_spec_validator_finds_no_error(documents: Documents) -> None:
    code, output = await python_tool("openapi-spec-validator", *documents)
    # A line for each document that has no error; the first error ends the program.
    assert f"{documents.ours}: OK" in output.splitlines(), output
    assert code != 0
    assert "create_user" in output


async def test_spectral_finds_nothing(documents: Documents, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    _, output = await node_tool(
        "spectral",
        *("lint", *documents, "--ruleset", CLIENTS / "spectral.json"),
        *("--format", "json", "--output", report),
    )
    assert report.exists(), output
    found = {
        (Path(each["source"]).name, each["code"]) for each in orjson.loads(report.read_bytes())
    }
    assert found == {("broken.json", "operation-operationId-unique")}


async def test_redocly_finds_nothing(documents: Documents) -> None:
    _, output = await node_tool(
        "redocly", "lint", *documents, "--extends", "recommended", "--format", "json"
    )
    # The output has one report per file, between other text.
    assert output.count('"totals"') == 2, output
    assert re.findall(r'"ruleId": "(.*)"', output) == ["operation-operationId-unique"]
    [place] = re.findall(r'"ref": "(.*)"', output)
    assert Path(place).name == "broken.json"
