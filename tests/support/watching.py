"""The files of deploy/observability, and promtool, which checks them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT

FOLDER = ROOT / "deploy" / "observability"
SITUATIONS = "rules/tests/alerts.yml"


def promtool(
    *arguments: str, folder: Path = FOLDER, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run promtool in the folder, with the text `stdin` as its input."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is missing: .ci/services installs it as root", pytrace=False)
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def read(file: Path) -> Any:
    """The content of a YAML or JSON file."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def write(file: Path, content: Any) -> None:
    """Write the content of a YAML file."""
    file.write_text(yaml.safe_dump(content), encoding="utf-8")


def rules(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All rules, in their order."""
    files = sorted((folder / "rules").glob("*.yml"))
    return [rule for file in files for group in read(file)["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The rule of each alert, by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@dataclass(frozen=True)
class Situation:
    """A case of the tests of rules: its series, and the alerts that fire."""

    name: str
    series: list[str]
    fires: set[str]


def situations() -> list[Situation]:
    """All situations, in their order."""
    found = []
    for case in read(FOLDER / SITUATIONS)["tests"]:
        [asked] = case["promql_expr_test"]
        labels = [sample["labels"] for sample in asked["exp_samples"]]
        fires = {name for each in labels for name in re.findall(r'alertname="(\w+)"', each)}
        found.append(Situation(case["name"], [s["series"] for s in case["input_series"]], fires))
    return found


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards, by file name."""
    files = (FOLDER / "grafana" / "dashboards").glob("*.json")
    return {file.name: json.loads(file.read_text(encoding="utf-8")) for file in sorted(files)}


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    """Every expression that it sends to Prometheus."""
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (each["expr"] for each in dashboard["annotations"]["list"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            # `label_values(metric, label)` is a function of Grafana; Prometheus gets the metric.
            yield variable["definition"].partition("(")[2].partition(",")[0]
