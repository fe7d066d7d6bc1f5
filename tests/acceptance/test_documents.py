"""Health, the OpenAPI document, documentation, pages of problems, and request ids."""

import re
from collections.abc import Awaitable, Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import jsonschema_rs
import pytest

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import UNKNOWN_ID, transfer_body
from tests.support.deliveries import logged_delivery
from transferd.web.problems import TYPES

_HEX = "[0-9a-f]"
_TRACEPARENT = re.compile(rf"00-({_HEX}{{32}})-{_HEX}{{16}}-{_HEX}{{2}}")
_DOCUMENTS = {
    "/healthz": "application/json",
    "/readyz": "application/json",
    "/metrics": "text/plain; version=0.0.4; charset=utf-8",
    "/openapi.json": "application/json",
    "/docs": "text/html; charset=utf-8",
    "/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "/docs/swagger-ui.css": "text/css; charset=utf-8",
    "/problems": "application/json",
    "/problems/insufficient-funds": "text/html; charset=utf-8",
}

# unit/test_problems.py compares this table with the contract.
_STATUS_OF_CODE = {code: kind.status for code, kind in TYPES.items()}


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Method, path and description of every operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


async def test_a_replica_is_healthy_and_ready(api: Api) -> None:
    assert (await api.get("/healthz")).json == {"status": "ok"}
    assert (await api.get("/readyz")).json == {"status": "ready"}
    assert b"\n# TYPE transferd_" in (await api.get("/metrics")).body


async def test_documents_have_their_media_types(api: Api) -> None:
    for path, media_type in _DOCUMENTS.items():
        reply = await api.get(path)
        assert reply.status == 200, path
        assert reply.headers["Content-Type"].removesuffix("; charset=utf-8") == (
            media_type.removesuffix("; charset=utf-8")
        )


async def test_head_is_get_without_the_body(api: Api) -> None:
    ada = await api.wallet(5)
    user = (await api.get(f"/wallets/{ada}")).json["user_id"]
    [paid] = (await api.get(f"/transfers?wallet_id={ada}")).json["data"]
    await api.transfer(ada, await api.funding_wallet(), 1, key="rent")
    paths = [path for path in _DOCUMENTS if path != "/metrics"]
    paths += ["/users", f"/users/{user}", "/currencies", "/wallets?limit=1", f"/wallets/{ada}"]
    paths += [f"/wallets/{ada}/statement", f"/transfers?wallet_id={ada}&limit=1"]
    paths += [f"/transfers/{paid['id']}", "/idempotency-keys/rent", "/nothing", "/webhooks"]
    paths += [f"/wallets/{UNKNOWN_ID}", "/users?limit=0"]
    own = {"date", "x-request-id", "traceparent"}
    for path in paths:
        headers = {"X-Request-Id": "x"}
        whole = await api.get(path, headers)
        head = await api.call("HEAD", path, headers=headers)
        assert (head.status, head.body) == (whole.status, b""), path
        for name, value in whole.headers.items():
            if name.lower() not in own:
                assert head.headers[name] == value, (path, name)
    assert (await api.call("HEAD", f"/wallets/{ada}/freeze")).status == 405


async def test_every_operation_is_described_and_needs_a_scope(document: Any) -> None:
    described = list(operations(document))
    assert len(described) == 34
    for _, path, operation in described:
        assert operation["summary"]
        assert re.search(
            r"(^| )Scope `(wallets:(read|write)|transfers:write|webhooks:admin)`\.$",
            operation["description"],
        )
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


async def test_the_document_names_every_code_where_it_belongs(document: Any) -> None:
    named: dict[str, set[int]] = {}
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if "application/problem+json" in response.get("content", {}):
                for code in re.findall(r"`([\w-]+)`", response["description"]):
                    named.setdefault(code, set()).add(int(status))
    # Three codes belong to no operation, and two to Nginx.
    elsewhere = {"malformed-request", "not-found", "method-not-allowed"}
    elsewhere |= {"rate-limited", "bad-gateway"}
    for code, statuses in named.items():
        assert statuses == {_STATUS_OF_CODE[code]}, code
    assert set(named) | elsewhere == set(_STATUS_OF_CODE)


async def test_the_document_lists_the_optional_fields(api: Api, document: Any) -> None:
    user, ada = await api.user(), await api.wallet(5)
    [paid] = (await api.get(f"/transfers?wallet_id={ada}")).json["data"]
    ids = {"/users/{id}": user, "/wallets/{id}": ada, "/transfers/{id}/reversal": paid["id"]}
    ids["/webhooks/{id}"] = UNKNOWN_ID
    hold = (await api.hold(await api.wallet(1), 1, destination_wallet_id=ada)).json["id"]
    ids |= {f"/holds/{{id}}/{what}": hold for what in ("adjust", "capture", "release")}
    for method, path, operation in operations(document):
        if "requestBody" in operation:
            address = path.replace("{id}", ids.get(path, ""))
            without = await api.call(method, address, key=f"{method} {path}")
            expected = 415 if operation["requestBody"]["required"] else 201
            assert without.status == expected, path
        for parameter in operation["parameters"]:
            if parameter["name"] == "Idempotency-Key" and parameter["required"]:
                one = transfer_body(ada, UNKNOWN_ID)
                without_destination = {**one, "destination_wallet_id": None}
                bodies: dict[str, Any] = {
                    "/transfers": one,
                    "/holds": without_destination,
                    "/holds/{id}/release": None,
                    "/transfers/batch": {"mode": "atomic", "transfers": [one]},
                }
                body = bodies.get(path, {"amount": 1})
                reply = await api.post(path.replace("{id}", ids.get(path, paid["id"])), body)
                assert reply.code == "idempotency-key-missing"


class Conformity:
    """Checks answers against the document, and knows which of its operations were answered."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._components = document["components"]
        for schema in self._components["schemas"].values():
            if schema.get("type") == "object":
                # Answers have only documented fields; problems may have more.
                schema.setdefault("additionalProperties", False)
        self.missing = {
            (method, path, status)
            for method, path, operation in operations(document)
            for status, response in operation["responses"].items()
            if "application/json" in response.get("content", {}) or status in {"204", "304", "412"}
        }

    def check(self, method: str, path: str, reply: Reply) -> None:
        """Raise unless the answer is as the document says."""
        described = self._document["paths"][path][method.lower()]["responses"][str(reply.status)]
        always = {"X-Request-Id", "traceparent"}
        assert always <= set(described["headers"])
        for name in set(described["headers"]) - {"Link", "Retry-After", "Idempotent-Replayed"}:
            assert name in reply.headers, (method, path, name)
        if "content" not in described:
            assert reply.body == b""
        else:
            media_type = reply.headers["Content-Type"].split(";")[0]
            schema = {**described["content"][media_type]["schema"], "components": self._components}
            jsonschema_rs.validate(schema, reply.json, validate_formats=True)
        self.missing.discard((method, path, str(reply.status)))


# The ETag of a wallet, another ETag, and an event after its version.
_CONDITIONS = {"If-None-Match": "*", "If-Match": '"w99"', "Last-Event-ID": "99"}
_CONDITIONAL = [("PATCH", ""), ("GET", "/events")]
_CONDITIONAL += [("POST", f"/{verb}") for verb in ("freeze", "unfreeze", "close")]


async def ask_about_holds(ask: Callable[..., Awaitable[Any]], ada: str, bob: str) -> None:
    """Every call about holds, once as a dry run. One minor unit moves from ada to bob."""
    booking = {"source_wallet_id": ada, "amount": 3, "currency": "USD", "expires_in_s": 600}
    await ask("POST", "/holds", booking, "?dry_run=true")
    hold = (await ask("POST", "/holds", booking))["id"]
    await ask("GET", "/holds/{id}", id=hold)
    await ask("GET", "/holds", query=f"?wallet_id={ada}&status=active")
    bodies = {
        "capture": {"amount": 1, "final": False, "destination_wallet_id": bob},
        "adjust": {"amount": 2},
        "release": None,
    }
    for what, body in bodies.items():
        for query in ("?dry_run=true", ""):
            await ask("POST", f"/holds/{{id}}/{what}", body, query, id=hold)


async def test_every_answer_is_as_documented(api: Api, document: Any, database: Database) -> None:
    conformity = Conformity(document)

    async def ask(method: str, path: str, body: Any = None, query: str = "", **values: str) -> Any:
        address = path.format(**values) + query
        headers = _CONDITIONS if query == "?" else {}
        key = f"{address} {body}"[:255] if method == "POST" else None
        reply = await api.call(method, address, body, key=key, headers=headers)
        conformity.check(method, path, reply)
        return reply.json if reply.body else None

    user = (await ask("POST", "/users", {"name": "Ada", "metadata": {"a": None, "b": 1.5}}))["id"]
    await ask("GET", "/users/{id}", id=user)
    await ask("PATCH", "/users/{id}", {"name": None}, id=user)
    for path in ("/users", "/currencies"):
        await ask("GET", path)
    wallet: dict[str, Any] = {"user_id": user, "currency": "USD", "overdraft_limit": 7}
    ada = (await ask("POST", "/wallets", wallet | {"initial_balance": 90}))["id"]
    bob = (await ask("POST", "/wallets", wallet))["id"]
    body = transfer_body(ada, bob, 20, reference="rent", metadata={"n": True})
    await ask("POST", "/transfers", body, "?dry_run=true")
    paid = (await ask("POST", "/transfers", body))["id"]
    transfers = [transfer_body(ada, bob, 1), transfer_body(ada, UNKNOWN_ID, 1)]
    for mode in ("independent", "atomic"):
        await ask("POST", "/transfers/batch", {"mode": mode, "transfers": transfers})
    await ask("POST", "/transfers/{id}/reversal", {"amount": 5}, id=paid)
    await ask("GET", "/transfers/{id}", id=paid)
    await ask("GET", "/transfers", query=f"?wallet_id={ada}")
    await ask("GET", "/transfers", query=f"?wallet_id={ada}&limit=1")
    await ask_about_holds(ask, ada, bob)
    await ask("PATCH", "/wallets/{id}", {"metadata": {"x": "y"}}, id=bob)
    for verb in ("freeze", "unfreeze"):
        await ask("POST", f"/wallets/{{id}}/{verb}", id=bob)
    await ask("POST", "/transfers", transfer_body(bob, ada, 17))
    await ask("POST", "/wallets/{id}/close", id=bob)
    for id in (ada, bob, await api.funding_wallet()):
        await ask("GET", "/wallets/{id}", id=id)
        await ask("GET", "/wallets/{id}/statement", id=id)
    await ask("GET", "/wallets")
    for path, query in (("", "?"), ("", "?min_version=99"), ("/statement", "?after_version=99")):
        await ask("GET", "/wallets/{id}" + path, query=query, id=ada)
    for method, path in _CONDITIONAL:
        await ask(method, "/wallets/{id}" + path, {} if path == "" else None, "?", id=ada)
    refused = transfer_body(ada, bob, 1_000)
    await ask("POST", "/transfers", refused)
    for key in (f"/transfers {body}", f"/transfers {refused}"):
        await ask("GET", "/idempotency-keys/{key}", key=key)
    webhook = {"url": "https://example.com/", "events": ["*", "wallet.*"], "wallet_id": ada}
    hook = (await ask("POST", "/webhooks", webhook))["id"]
    sent = await logged_delivery(database, hook)
    for path in ("/webhooks", "/webhooks/{id}"):
        await ask("GET", path, id=hook)
    await ask("POST", "/webhooks/{id}/rotate", id=hook)
    await ask("GET", "/webhooks/{id}/deliveries", id=hook)
    again = "/webhooks/{id}/deliveries/{delivery_id}/redeliver"
    await ask("POST", again, id=hook, delivery_id=sent)
    await ask("PATCH", "/webhooks/{id}", {"status": "disabled"}, id=hook)
    await ask("POST", again, query="?", id=hook, delivery_id=sent)
    await ask("DELETE", "/webhooks/{id}", id=hook)
    await ask("DELETE", "/webhooks/{id}", id=hook)
    assert conformity.missing == set()


class Addresses(HTMLParser):
    """Every address that a page makes a browser load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses of a tag."""
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "action"}]


async def test_the_documentation_loads_nothing_from_elsewhere(api: Api) -> None:
    page = (await api.get("/docs")).body.decode()
    addresses = Addresses(page).found
    assert len(addresses) == 3
    for address in addresses:
        assert address.startswith("/docs/")
        assert (await api.get(address)).status == 200
    script = (await api.get("/docs/start.js")).body.decode()
    assert re.findall(r'"(/[^"]*)"', script) == ["/openapi.json"]
    styles = (await api.get("/docs/swagger-ui.css")).body.decode()
    loaded = re.findall(r"url\(([^)]*)\)", styles)
    assert [url for url in loaded if not url.strip("\"'").startswith("data:")] == []
    for text in (page, script, styles):
        assert not re.search(r"(src|href|url|@import)\W{1,3}(https?:)?//", text)


async def test_every_problem_has_a_page(api: Api) -> None:
    listed = {each["code"]: each["status"] for each in (await api.get("/problems")).json["data"]}
    assert listed == _STATUS_OF_CODE
    for code, status in _STATUS_OF_CODE.items():
        page = await api.get(f"/problems/{code}")
        assert page.status == 200
        assert f"{status} {code}" in page.body.decode()
    # The type of a problem is the address of its page.
    problem = await api.get("/nothing")
    assert problem.code == "not-found"
    assert (await api.get(problem.json["type"])).status == 200


async def test_a_problem_has_its_type_its_path_and_its_request_id(api: Api) -> None:
    reply = await api.get(f"/wallets/{UNKNOWN_ID}?min_version=1", {"X-Request-Id": "mine"})
    assert list(reply.json.items()) == [
        ("type", "/problems/wallet-not-found"),
        ("title", "Wallet not found"),
        ("status", 404),
        ("detail", f"There is no wallet {UNKNOWN_ID}."),
        ("instance", f"/wallets/{UNKNOWN_ID}"),
        ("code", "wallet-not-found"),
        ("request_id", "mine"),
    ]


async def test_every_answer_has_the_ids_of_its_request(api: Api, subtests: pytest.Subtests) -> None:
    traceparent = f"00-{'4b' * 16}-{'0f' * 8}-01"
    for path in ("/healthz", "/users", "/nothing", "/users?limit=0", "/docs"):
        with subtests.test(path=path):
            given = await api.get(path, {"X-Request-Id": "My.id:1_2-3", "traceparent": traceparent})
            assert given.headers["X-Request-Id"] == "My.id:1_2-3"
            assert given.headers["traceparent"] == traceparent
            made = [await api.get(path, {"X-Request-Id": id, "traceparent": "00"}) for id in " ä"]
            for reply in made:
                match = _TRACEPARENT.fullmatch(reply.headers["traceparent"])
                assert match is not None
                assert reply.headers["X-Request-Id"] == match[1]
            assert made[0].headers["traceparent"] != made[1].headers["traceparent"]
            traced = await api.get(path, {"traceparent": traceparent})
            assert traced.headers["X-Request-Id"] == "4b" * 16
