"""The log at level DEBUG: each line has the id of its request, and no line has a secret."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from tests.conftest import Database, Workers
from tests.support.api import Api
from tests.support.command import Command, running
from tests.support.contract import api_key
from tests.support.receivers import in_turn, receiving, status
from tests.support.waiting import until
from transferd.domain.errors import DatabaseUnavailable
from transferd.observability.facts import About, CommandPoisoned
from transferd.observability.logging import Log

HUSH = "hush0123456789"
TRACE = "4b" * 16
TRACED = {"X-Request-Id": "request-1", "traceparent": f"00-{TRACE}-{'0f' * 8}-00"}


def with_password(url: str) -> str:
    """The server trusts local connections, so any password works."""
    parts = urlsplit(url)
    user = parts.username or "transferd"
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{HUSH}password@{place}"))


def lines_of(command: Command) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in command.output.splitlines() if line.startswith("{")]


async def test_no_log_line_has_a_secret_and_each_has_the_request_id(
    database: Database, workers: Workers
) -> None:
    given = workers.settings()
    shared = database.variables() | {
        "TRANSFERD_DATABASE_URL": with_password(given.required("database_url")),
        "TRANSFERD_LOG_LEVEL": "DEBUG",
        "TRANSFERD_WEBHOOK_ALLOW_HTTP": "true",
        "TRANSFERD_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    serving = shared | {"TRANSFERD_AUTH": "on"}
    working = shared | {
        "TRANSFERD_AMQP_URL": given.required("amqp_url"),
        "TRANSFERD_AMQP_PREFIX": given.amqp_prefix,
        "TRANSFERD_WORKER_PORT": "0",
        "TRANSFERD_NOTIFY_RETRY_DELAYS_S": "0.05",
    }
    token = await api_key(database, "good", "admin")
    async with (
        running("serve", settings=serving) as replica,
        running("worker", settings=working) as worker,
        receiving() as receiver,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
    ):
        await replica.says('"serving"')
        api = Api(session, replica.url)
        receiver.answer = in_turn(status(500), status(204))
        hook = {"url": f"{receiver.url}?token={HUSH}url", "events": ["transfer.posted"]}
        webhook = await api.post("/webhooks", hook)
        assert webhook.status == 201
        source, destination = await api.wallet(), await api.wallet()
        body = {
            "source_wallet_id": await api.funding_wallet(),
            "destination_wallet_id": source,
            "amount": 7_654_321,
            "currency": "USD",
            "reference": f"{HUSH}reference",
            "metadata": {"note": f"{HUSH}metadata"},
        }
        key = f"{HUSH}key"
        posted = await api.post("/transfers", body, key=key, headers=TRACED)
        assert posted.status == 201
        # Refused, rate-limited, reused, unreadable, unauthenticated: each has a line.
        refused = body | {"source_wallet_id": destination, "destination_wallet_id": source}
        assert (await api.post("/transfers", refused, key=f"{key}2")).status == 422
        assert (await api.post("/transfers", refused, key=key)).status == 422
        assert (await api.post("/transfers", body | {HUSH: HUSH}, key=key)).status == 422
        assert (await api.call("POST", "/transfers", raw=HUSH.encode(), key=key)).status == 400
        assert (await api.get(f"/idempotency-keys/{key}")).status == 200
        assert (await api.get(f"/nothing/{HUSH}path?{HUSH}=query")).status == 404
        bad = {"Authorization": f"Bearer td_good_{HUSH}{HUSH}"}
        assert (await api.get("/users", bad)).status == 401
        await until(lambda: len(receiver.received) >= 2, within_s=30.0)
        await worker.says('"event":"event"')
        output = replica.output + worker.output
        lines = lines_of(replica) + lines_of(worker)

    secret = webhook.json["secret"].removeprefix("whsec_")
    for hush in (HUSH, token, token.rpartition("_")[2], secret, "7654321", "Bearer"):
        assert hush not in output
    about = {"request_id": "request-1", "trace_id": TRACE, "transfer_id": posted.json["id"]}
    mine = [line for line in lines if line.get("transfer_id") == posted.json["id"]]
    assert all(about.items() <= line.items() for line in mine)
    assert {line["event"] for line in mine} >= {"request", "transfer posted", "event"}
    assert any(line["event"] == "delivery failed" for line in mine)
    [request] = [line for line in mine if line["event"] == "request"]
    assert (request["method"], request["route"], request["status"]) == ("POST", "/transfers", 201)
    codes = {line.get("code") for line in lines if line["event"] == "request"}
    assert codes >= {
        "ok",
        "insufficient-funds",
        "idempotency-key-reused",
        "invalid-request",
        "malformed-json",
        "unauthenticated",
        "not-found",
    }


async def test_an_error_is_logged_without_the_values_it_quotes(log_lines: list[Any]) -> None:
    try:
        try:
            raise ValueError(f"DETAIL: Failing row contains ({HUSH}).")
        except ValueError as error:
            raise DatabaseUnavailable from error
    except DatabaseUnavailable as error:
        about = About("request-1", TRACED["traceparent"], "transfer-1")
        Log()(CommandPoisoned("Transfer", error, about))
    said = str(log_lines)
    assert HUSH not in said
    for word in ("DatabaseUnavailable", "because of", "ValueError", "request-1", TRACE):
        assert word in said
