"""Requests that a program makes up from the OpenAPI document, answered as the document says."""

import asyncio
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import Database
from tests.support.api import Api
from tests.support.deliveries import logged_delivery
from tests.support.truth import faults_in

_EXAMPLES_PER_OPERATION = 15
# A stream ends only when its client leaves.
_STREAM_READ_S = 0.05
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class Explorer:
    """Sends made-up requests, half of them with ids that exist."""

    def __init__(self, url: str, known: dict[str, str]) -> None:
        self._url = url
        self._known = known
        self.statuses: dict[str, Counter[int]] = {}

    def explore(self) -> None:
        """A few requests for each operation; raises for the first that is answered wrongly."""
        schema = schemathesis.openapi.from_url(f"{self._url}/openapi.json")
        with requests.Session() as session:
            for result in schema.get_all_operations():
                assert isinstance(result, Ok), result
                self._explore(result.ok(), session)

    def _explore(self, operation: Any, session: requests.Session) -> None:
        statuses = self.statuses.setdefault(operation.label, Counter())

        # No examples are kept from run to run, so that every run is the same.
        @settings(
            max_examples=_EXAMPLES_PER_OPERATION,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), exists=st.booleans())
        def send(case: Any, exists: bool) -> None:
            if exists:
                self._aim(case, operation.label)
            is_stream = operation.path.endswith("/events")
            timeout_s = _STREAM_READ_S if is_stream and exists else None
            response = case.call(session=session, timeout=timeout_s)
            case.validate_response(response, checks=_CHECKS)
            statuses[response.status_code] += 1

        send()

    def _aim(self, case: Any, label: str) -> None:
        """Put ids that exist into the path, the query and the body."""
        noun = case.path.split("/")[1]
        if "id" in case.path_parameters:
            case.path_parameters["id"] = self._known.get(label, self._known[noun])
        if "delivery_id" in case.path_parameters:
            case.path_parameters["delivery_id"] = self._known["delivery_id"]
        for place in (case.query, case.body):
            if isinstance(place, dict):
                place.update({n: id for n, id in self._known.items() if n in place})


async def test_what_is_made_up_from_the_document_is_answered_as_it_says(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(100_000, overdraft_limit=5_000), await api.wallet(100)
    webhook = {"url": "https://example.com/hook", "events": ["*"]}
    webhooks = [(await api.post("/webhooks", webhook)).json["id"] for _ in range(2)]
    known = {
        "users": await api.user(),
        # Another one, because it will be frozen.
        "wallets": await api.wallet(1),
        "transfers": (await api.transfer(ada, bob, 9)).json["id"],
        "user_id": await api.user(),
        "wallet_id": bob,
        "source_wallet_id": ada,
        "destination_wallet_id": bob,
        "currency": "USD",
        "url": webhook["url"],
        "webhooks": webhooks[0],
        "delivery_id": await logged_delivery(database, webhooks[0]),
        "DELETE /webhooks/{id}": webhooks[1],
    }
    explorer = Explorer(api.url, known)
    await asyncio.to_thread(explorer.explore)
    assert len(explorer.statuses) == 28
    assert all(
        sum(found.values()) >= _EXAMPLES_PER_OPERATION for found in explorer.statuses.values()
    )
    # Not only refusals were met: most of what may succeed did.
    succeeded = {
        label for label, found in explorer.statuses.items() if any(each < 300 for each in found)
    }
    assert len(succeeded) >= 20, explorer.statuses
    assert await faults_in(database) == []
