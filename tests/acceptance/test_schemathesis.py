"""Requests that schemathesis generates from the OpenAPI document get documented answers."""

import asyncio
import os
import sys
from pathlib import Path

import orjson

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import ApiWithKey, api_key
from tests.support.deliveries import logged_delivery
from tests.support.project import ROOT
from tests.support.truth import faults_in
from tests.support.waiting import patient_s

_CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
_WITHIN_S = 60.0
# Checks of contract_checks.py call these and name the cases to which they do not apply.
_WRAPPED = ("positive_data_acceptance", "negative_data_rejection", "missing_required_header")


async def existing_ids(api: Api, database: Database) -> dict[str, str | int]:
    """Ids by their place: a noun of a path, a field, or one operation."""
    ada, bob = await api.wallet(100_000, overdraft_limit=5_000), await api.wallet(100)
    webhook = {"url": "https://example.com/hook", "events": ["*"]}
    webhooks = [(await api.post("/webhooks", webhook)).json["id"] for _ in range(2)]
    return {
        "users": await api.user(),
        # A wallet of its own, because requests freeze and close it.
        "wallets": await api.wallet(),
        "transfers": (await api.transfer(ada, bob, 9)).json["id"],
        "user_id": await api.user(),
        "wallet_id": bob,
        "source_wallet_id": ada,
        "destination_wallet_id": bob,
        "currency": "USD",
        "amount": 1,
        "holds": (await api.hold(ada, 9, destination_wallet_id=bob)).json["id"],
        "webhooks": webhooks[0],
        "delivery_id": await logged_delivery(database, webhooks[0]),
        "DELETE /webhooks/{id}": webhooks[1],
    }


async def schemathesis(api: Api, known: dict[str, str | int], report: Path) -> str:
    """Run every phase with every check; the output."""
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", _CONFIGURATION),
        *("--no-color", "run", f"{api.url}/openapi.json", "--checks", "all"),
        *("--exclude-checks", ",".join(_WRAPPED)),
        *("--header", f"Authorization: {api.headers['Authorization']}"),
        *("--report", "json", "--report-json-path", report),
        # It writes a cache into its working directory.
        cwd=report.parent,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "KNOWN_TO_SCHEMATHESIS": orjson.dumps(known).decode()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), patient_s(_WITHIN_S))
    return output.decode()


async def test_generated_requests_get_documented_answers(
    replicas: Replicas, database: Database, tmp_path: Path
) -> None:
    token = await api_key(database, "explorer", "admin")
    api = ApiWithKey(await replicas.start(auth="on"), token)
    known = await existing_ids(api, database)
    output = await schemathesis(api, known, tmp_path / "report.json")
    assert (tmp_path / "report.json").exists(), output
    report = orjson.loads((tmp_path / "report.json").read_bytes())
    assert (report["failures"], report["errors"]) == ([], []), output
    assert report["exit_code"] == 0, output
    assert (report["complete"], report["operations"]["tested"]) == (True, 34)
    assert {name for name, phase in report["phases"].items() if phase["status"] == "success"} == {
        "coverage",
        "examples",
        "fuzzing",
        "stateful",
    }
    # Most operations succeeded at least once.
    succeeded = {
        label
        for label, phases in report["valid_rates"].items()
        if any(phase["accepted"] for phase in phases.values())
    }
    assert len(succeeded) >= 30, report["valid_rates"]
    assert await faults_in(database) == []
