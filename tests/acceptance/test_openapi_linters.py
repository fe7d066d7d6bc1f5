"""What linters that others use say of our OpenAPI document: nothing, though they can."""

import copy
import re
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from tests.support.api import Api
from tests.support.openapi_tools import CLIENTS, node_tool, python_tool


class Documents(NamedTuple):
    """Ours as it is served, and with a name that two operations share."""

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
    code, said = await python_tool("openapi-spec-validator", documents.ours)
    assert code == 0, said
    code, said = await python_tool("openapi-spec-validator", documents.broken)
    assert code != 0
    assert "create_user" in said


async def test_spectral_finds_nothing(documents: Documents, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    _, said = await node_tool(
        "spectral",
        *("lint", *documents, "--ruleset", CLIENTS / "spectral.json"),
        *("--format", "json", "--output", report),
    )
    assert report.exists(), said
    found = {
        (Path(each["source"]).name, each["code"]) for each in orjson.loads(report.read_bytes())
    }
    assert found == {("broken.json", "operation-operationId-unique")}


async def test_redocly_finds_nothing(documents: Documents) -> None:
    _, said = await node_tool(
        "redocly", "lint", *documents, "--extends", "recommended", "--format", "json"
    )
    # The output has one report per file, between other text.
    assert said.count('"totals"') == 2, said
    assert re.findall(r'"ruleId": "(.*)"', said) == ["operation-operationId-unique"]
    [place] = re.findall(r'"ref": "(.*)"', said)
    assert Path(place).name == "broken.json"
