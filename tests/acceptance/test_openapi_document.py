"""Properties of the OpenAPI document that generators of clients and its readers need."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import jsonschema_rs
import orjson

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import UNKNOWN_ID, transfer_body
from tests.support.outbox import events_in
from tests.support.waiting import until
from transferd.commit.events import cloud_event
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import EVENT_TYPES
from transferd.web.problems import TYPES
from transferd.web.schemas import EXAMPLE_OTHER_WALLET_ID, EXAMPLE_USER_ID, EXAMPLE_WALLET_ID

_MONEY_OR_VERSION = re.compile(
    r"amount|available|balance|captured|held|held_after|initial_balance|left|overdraft_limit"
    r"|released|remaining|shortfall"
    r"|(.*_)?version|.*_balance_after|balance_after"
)


def members(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every property of a schema and of all within it, by name."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for part in schema.values():
            yield from members(part)
    if isinstance(schema, list):
        for part in schema:
            yield from members(part)


def parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
        for part in node.values():
            yield from parts(part)
    if isinstance(node, list):
        for part in node:
            yield from parts(part)


def operations(document: Any) -> Iterator[dict[str, Any]]:
    """Every operation."""
    for methods in document["paths"].values():
        yield from methods.values()


def shapes(document: Any) -> list[str]:
    """The components that are problems."""
    schemas = document["components"]["schemas"]
    return [name for name in schemas if "request_id" in schemas[name].get("properties", {})]


def is_valid(document: Any, name: str, value: object) -> bool:
    """Whether a value is what a component says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema_rs.is_valid(schema, value, validate_formats=True)


async def rotated_too_often(api: Api) -> Reply:
    """The first refusal to rotate the secret of a webhook."""
    hook = {"url": "https://example.com/", "events": ["*"]}
    address = f"/webhooks/{(await api.post('/webhooks', hook)).json['id']}/rotate"
    while (reply := await api.post(address)).status == 200:
        pass
    return reply


async def test_a_generated_client_sends_nothing_that_its_user_left_out(document: Any) -> None:
    assert [part for part in parts(document) if part.get("default", 0) is None] == []
    schemas = document["components"]["schemas"]
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method == "patch"
    }
    assert bodies == {"UserPatch", "WalletPatch", "WebhookPatch"}
    for body in bodies:
        assert [part for part in parts(schemas[body]) if "default" in part] == []
    assert "default" in schemas["NewWallet"]["properties"]["initial_balance"]


async def test_integers_of_money_and_versions_have_64_bits(document: Any) -> None:
    found = 0
    for name, member in members(document["components"]["schemas"]):
        if name == "specversion" or not _MONEY_OR_VERSION.fullmatch(name):
            continue
        integers = [part for part in parts(member) if part.get("type") == "integer"]
        assert integers, name
        assert all(integer["format"] == "int64" for integer in integers), name
        found += 1
    assert found > 20
    for operation in operations(document):
        for parameter in operation["parameters"]:
            if _MONEY_OR_VERSION.fullmatch(parameter["name"]):
                assert parameter["schema"]["format"] == "int64"


async def test_operations_are_named_with_verbs(document: Any) -> None:
    verbs = {"create", "list", "read", "update", "delete", "freeze", "unfreeze", "close"}
    verbs |= {"follow", "reverse", "rotate", "redeliver", "capture", "adjust", "release"}
    names = [operation["operationId"] for operation in operations(document)]
    assert len(names) == len(set(names)) == 34
    assert {name.partition("_")[0] for name in names} == verbs
    assert {"create_transfer", "list_wallets", "freeze_wallet", "reverse_transfer"} <= set(names)


async def test_lists_and_enumerations_are_components(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        if "get" in methods and methods["get"]["operationId"].startswith("list_"):
            schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("List"), path
    named = {name for name, schema in schemas.items() if "enum" in schema}
    assert named == {
        *("BatchMode", "DeliveryStatus", "EntryKind", "EventFilter", "EventType", "KeyStatus"),
        *("HoldStatus", "ProblemCode", "RefusalCode", "TransferKind", "WalletStatus"),
        "WebhookStatus",
    }
    everywhere = [part["enum"] for part in parts(document) if "enum" in part]
    assert len(everywhere) == len(named)
    assert [part for part in parts(document["paths"]) if "properties" in part] == []


async def test_every_code_has_one_shape(document: Any) -> None:
    schemas = document["components"]["schemas"]
    shape_of: dict[str, str] = {}
    for name in shapes(document):
        code = schemas[name]["properties"]["code"]
        if "$ref" in code:
            code = schemas[code["$ref"].rpartition("/")[2]]
        for each in code.get("enum") or [code["const"]]:
            assert each not in shape_of, each
            shape_of[each] = name
    assert set(shape_of) == set(TYPES)
    # An answer names the shape of each of its codes.
    for operation in operations(document):
        for response in operation["responses"].values():
            content = response.get("content", {}).get("application/problem+json")
            if content is not None:
                refs = [
                    part["$ref"].rpartition("/")[2] for part in parts(content) if "$ref" in part
                ]
                codes = re.findall(r"`([\w-]+)`", response["description"])
                assert sorted(refs) == sorted({shape_of[code] for code in codes})


async def has_expired(api: Api, hold: str) -> bool:
    return bool((await api.get(f"/holds/{hold}")).json["status"] == "expired")


async def test_the_facts_of_every_refusal_are_described(
    api: Api, document: Any, database: Database
) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    ada, bob = await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 20)).json["id"]
    transfers = [transfer_body(ada, bob, 1), transfer_body(ada, bob, 1_000)]
    batch = {"mode": "atomic", "transfers": transfers}
    strange = {"mode": "atomic", "transfers": [transfer_body(ada, ada)]}
    hold = (await api.hold(ada, 5, destination_wallet_id=bob)).json
    await api.about_hold(hold["id"], "capture", {"amount": 2, "final": False})
    over = (await api.hold(ada, 5, destination_wallet_id=bob)).json
    await api.about_hold(over["id"], "capture", {"amount": 2})
    due = (await api.hold(ada, 1, expires_in_s=1)).json
    full = await api.wallet(10)
    await database.fetch(
        "UPDATE ledger_00.wallets SET open_holds = $2 WHERE id = $1", full, Limits().open_holds_max
    )
    await until(partial(has_expired, api, due["id"]))
    refused = {
        "insufficient-funds": api.transfer(ada, bob, 1_000),
        "invalid-request": api.transfer(ada, bob, 0),
        "body-too-large": api.post("/users", {"name": "x" * 2**20}),
        "version-not-reached": api.get(f"/wallets/{ada}?min_version=99"),
        "version-changed": api.post(f"/wallets/{ada}/freeze", headers={"If-Match": '"w9"'}),
        "wallet-not-empty": api.post(f"/wallets/{ada}/close"),
        "reversal-exceeds-transfer": api.post(
            f"/transfers/{paid}/reversal", {"amount": 21}, key="too much"
        ),
        "batch-refused": api.post("/transfers/batch", batch, key="poor"),
        "too-many-secrets": rotated_too_often(api),
        "same-wallet": api.transfer(ada, ada, 1),
        "hold-not-active": api.about_hold(over["id"], "release"),
        "hold-expired": api.about_hold(due["id"], "release"),
        "capture-exceeds-hold": api.about_hold(hold["id"], "capture", {"amount": 6}),
        "destination-mismatch": api.about_hold(
            hold["id"], "capture", {"destination_wallet_id": ada}
        ),
        "amount-below-captured": api.about_hold(hold["id"], "adjust", {"amount": 1}),
        "expiry-invalid": api.hold(ada, 1, expires_at="2020-01-01T00:00:00Z"),
        "too-many-holds": api.hold(full, 1),
    }
    answers = {code: await reply for code, reply in refused.items()}
    assert {code: reply.code for code, reply in answers.items()} == {code: code for code in answers}
    answers["another refusal"] = await api.post("/transfers/batch", strange, key="strange")
    captures = {
        "no hold": {"hold_id": UNKNOWN_ID},
        "over": {"hold_id": over["id"]},
        "due": {"hold_id": due["id"]},
        "too much": {"hold_id": hold["id"], "amount": 6},
        "mismatch": {"hold_id": hold["id"], "destination_wallet_id": ada},
    }
    for name, item in captures.items():
        for mode in ("atomic", "independent"):
            body = {"mode": mode, "transfers": [item]}
            answers[f"{name} {mode}"] = await api.post("/transfers/batch", body, key=name + mode)
            if mode == "independent":
                result = answers.pop(f"{name} {mode}").json
                assert is_valid(document, "BatchResult", result), result
    answers["a time"] = await api.get(f"/wallets/{ada}?at=9999-01-01T00:00:00Z")
    assert "now" in answers["a time"].json
    for reply in answers.values():
        fitting = [name for name in shapes(document) if is_valid(document, name, reply.json)]
        assert len(fitting) == 1, (reply.json, fitting)
    # Every refusal with facts was checked.
    assert len(refused) == len(shapes(document))


async def test_the_answers_of_nginx_are_listed(document: Any) -> None:
    for operation in operations(document):
        assert {"400", "401", "403", "422", "500", "502", "503", "504"} <= set(
            operation["responses"]
        )
        if "requestBody" in operation:
            assert {"413", "415"} <= set(operation["responses"])
    limited = [
        name
        for name, operation in ((o["operationId"], o) for o in operations(document))
        if "rate-limited" in operation["responses"].get("429", {}).get("description", "")
    ]
    # The locations of nginx/nginx.conf.template that have limit_req.
    assert limited == ["create_transfer", "create_batch", "create_hold"]


async def test_everything_is_described(document: Any) -> None:
    assert document["info"]["contact"]
    assert document["info"]["license"]
    assert document["servers"][0]["url"] == "/"
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    for operation in operations(document):
        assert all(tags[tag] for tag in operation["tags"])
        for parameter in operation["parameters"]:
            assert parameter["description"], parameter
        for response in operation["responses"].values():
            for header in response.get("headers", {}).values():
                assert header["description"]


async def test_the_event_stream_is_described_as_text_event_stream(document: Any) -> None:
    operation = document["paths"]["/wallets/{id}/events"]["get"]
    [(media_type, content)] = operation["responses"]["200"]["content"].items()
    assert media_type == "text/event-stream"
    event, text = content["schema"]["oneOf"]
    assert event == {"$ref": "#/components/schemas/StreamedEvent"}
    assert text["type"] == "string"
    streamed = document["components"]["schemas"]["StreamedEvent"]["properties"]
    assert streamed["data"]["contentSchema"] == {"$ref": "#/components/schemas/Event"}


async def test_every_type_of_event_is_described(document: Any) -> None:
    assert tuple(document["webhooks"]) == EVENT_TYPES
    for type_, path in document["webhooks"].items():
        operation = path["post"]
        headers = {parameter["name"] for parameter in operation["parameters"]}
        assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        content = operation["requestBody"]["content"]["application/cloudevents+json"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
        assert schema["properties"]["type"] == {"const": type_, "type": "string"}


async def test_every_event_is_as_described(api: Api, document: Any, database: Database) -> None:
    for schema in document["components"]["schemas"].values():
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    ada, bob = await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 20, reference="rent", metadata={"n": 1})).json["id"]
    await api.post(f"/transfers/{paid}/reversal", key="back")
    await api.patch(f"/wallets/{bob}", {"metadata": {"x": "y"}})
    hold = (await api.hold(ada, 5)).json["id"]
    await api.about_hold(hold, "adjust", {"amount": 6})
    paying = {"amount": 2, "final": False, "destination_wallet_id": await api.wallet()}
    await api.about_hold(hold, "capture", paying)
    await api.about_hold(hold, "release")
    due = (await api.hold(ada, 5, expires_in_s=1)).json["id"]
    await until(partial(has_expired, api, due))
    await api.about_hold(due, "release")
    for verb in ("freeze", "unfreeze", "close"):
        assert (await api.post(f"/wallets/{bob}/{verb}")).status == 200
    sent = [orjson.loads(cloud_event(event, MAIN.name)) for event in await events_in(database)]
    assert {event["type"] for event in sent} == set(EVENT_TYPES)
    for event in sent:
        assert is_valid(document, "Event", event), event


async def test_every_example_works(api: Api, document: Any) -> None:
    ada, bob = await api.wallet(100_000), await api.wallet()
    user = (await api.get(f"/wallets/{ada}")).json["user_id"]
    paid = (await api.transfer(ada, bob, 2500)).json["id"]
    hook = {"url": "https://example.com/", "events": ["*"]}
    ids = {
        "users": user,
        "wallets": ada,
        "transfers": paid,
        "holds": (await api.hold(ada, 20_000, destination_wallet_id=bob)).json["id"],
        "webhooks": (await api.post("/webhooks", hook)).json["id"],
    }
    # The description of the document says that these are placeholders.
    own = {EXAMPLE_USER_ID: user, EXAMPLE_WALLET_ID: ada, EXAMPLE_OTHER_WALLET_ID: bob}
    sent = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            name = schema["$ref"].rpartition("/")[2]
            for example in document["components"]["schemas"][name]["examples"]:
                text = orjson.dumps(example).decode()
                for placeholder, id in own.items():
                    text = text.replace(placeholder, id)
                address = path.replace("{id}", ids[path.split("/")[1]])
                reply = await api.call(
                    method.upper(), address, raw=text.encode(), key=f"example {sent}"
                )
                is_new = method == "post" and not path.endswith(("batch", "adjust"))
                assert reply.status == (201 if is_new else 200), reply
                sent += 1
    assert sent == 12
