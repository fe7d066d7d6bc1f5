"""Nginx and replicas read headers by the same grammar: keys, ids, conditions, repeated lines."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import orjson
import pytest

from loadtest.front import Nginx, running_nginx
from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import api_key
from tests.support.raw_http import Ending, until_ended
from tests.support.waiting import until

# A few requests at once exceed these rates, on a slow machine too.
_LIMITED = {"NGINX_KEY_RATE": "1", "NGINX_KEY_BURST": "1"}
_AT_ONCE = 12


@pytest.fixture
async def doors(replicas: Replicas) -> AsyncIterator[tuple[Api, Nginx]]:
    """A replica with `auth=on`, and an Nginx before it that counts requests per key."""
    api = await replicas.start(auth="on")
    async with running_nginx([urlsplit(api.url).netloc], _LIMITED) as nginx:
        yield api, nginx


def port_of(api: Api) -> int:
    """The port of a replica."""
    port = urlsplit(api.url).port
    assert port is not None
    return port


async def asked(
    port: int, *lines: str, path: str = "/transfers", method: str = "POST", body: str = "{}"
) -> Ending:
    """The answer to a request with exactly these lines in its head."""
    head = [
        f"{method} {path} HTTP/1.1",
        *("Host: a", "Connection: close", "Content-Type: application/json"),
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return await until_ended(port, ("\r\n".join(head) + "\r\n\r\n" + body).encode("latin-1"))


def status_of(ending: Ending) -> int:
    """The status of the only answer."""
    [status] = ending.statuses
    return status


# Lines with a key, and the status of an otherwise invalid request: 422 if the key is accepted.
_KEYS: dict[str, tuple[list[str], int]] = {
    "as it is documented": (["Authorization: Bearer {token}"], 422),
    "two spaces": (["Authorization: Bearer  {token}"], 422),
    "many spaces": (["Authorization: Bearer" + " " * 40 + "{token}"], 422),
    "small letters": (["Authorization: bearer {token}"], 422),
    "capitals": (["AUTHORIZATION: BEARER {token}"], 422),
    "mixed": (["authorization: bEaReR {token}"], 422),
    "no blank after the colon": (["Authorization:Bearer {token}"], 422),
    "a tab after the colon": (["Authorization:\tBearer {token}"], 422),
    "blanks and tabs around": (["Authorization: \t Bearer {token} \t "], 422),
    "a tab": (["Authorization: Bearer\t{token}"], 401),
    "a space and a tab": (["Authorization: Bearer \t{token}"], 401),
    "a tab and a space": (["Authorization: Bearer\t {token}"], 401),
    "a no-break space": (["Authorization: Bearer\xa0{token}"], 401),
    "a no-break space in UTF-8": (["Authorization: Bearer \xc2\xa0{token}"], 401),
    "no blank": (["Authorization: Bearer{token}"], 401),
    "no scheme": (["Authorization: {token}"], 401),
    "another scheme": (["Authorization: Basic {token}"], 401),
    "a longer scheme": (["Authorization: xBearer {token}"], 401),
    "a comma after it": (["Authorization: Bearer {token},"], 401),
    "two in a list": (["Authorization: Bearer {token}, Bearer {token}"], 401),
    "two in a row": (["Authorization: Bearer {token} {token}"], 401),
    "in quotes": (['Authorization: Bearer "{token}"'], 401),
    "capitals in the key": (["Authorization: Bearer TD_{rest}"], 401),
    "escaped": (["Authorization: Bearer %74d_{rest}"], 401),
    "empty": (["Authorization:"], 401),
    "a scheme alone": (["Authorization: Bearer"], 401),
    "none": ([], 401),
    "by another name": (["X-Authorization: Bearer {token}"], 401),
    "with an underscore": (["Author_ization: Bearer {token}"], 401),
    "two lines": (["Authorization: Bearer {token}", "Authorization: Bearer {token}"], 400),
    "an empty line first": (["Authorization:", "Authorization: Bearer {token}"], 400),
    "an empty line last": (["Authorization: Bearer {token}", "Authorization:"], 400),
    "another key first": (
        ["Authorization: Bearer td_other_0123456789abcdef", "authorization: Bearer {token}"],
        400,
    ),
    "a folded line": (["Authorization: Bearer", " {token}"], 400),
    "a blank before the colon": (["Authorization : Bearer {token}"], 400),
    "a control character": (["Authorization: Bearer {token}\x0b"], 400),
}


async def answered_at_once(port: int, *lines: str, path: str = "/transfers") -> set[int]:
    """The statuses of many requests at once with these lines in their heads."""
    endings = await asyncio.gather(*(asked(port, *lines, path=path) for _ in range(_AT_ONCE)))
    return {status_of(ending) for ending in endings}


async def until_limited(port: int, *lines: str, path: str = "/transfers") -> None:
    """Wait until Nginx refuses such requests with 429; until then the replica answers 422."""

    async def is_limited() -> bool:
        found = await answered_at_once(port, *lines, path=path)
        assert found <= {422, 429}
        return 429 in found

    await until(is_limited)


async def test_nginx_counts_exactly_the_keys_that_a_replica_accepts(
    doors: tuple[Api, Nginx], database: Database, subtests: pytest.Subtests
) -> None:
    api, nginx = doors
    for number, (name, (lines, status)) in enumerate(_KEYS.items()):
        token = await api_key(database, f"payer{number}", "transfers:write")
        with subtests.test(name):
            sent = [line.format(token=token, rest=token.removeprefix("td_")) for line in lines]
            assert status_of(await asked(port_of(api), *sent)) == status
            assert status_of(await asked(nginx.port, *sent)) == status
            if status == 422:
                await until_limited(nginx.port, *sent)
            else:
                assert await answered_at_once(nginx.port, *sent) == {status}


async def test_nginx_counts_a_payment_in_every_spelling_of_its_address(
    doors: tuple[Api, Nginx], database: Database, subtests: pytest.Subtests
) -> None:
    api, nginx = doors
    for number, (path, status) in enumerate(
        [
            ("/transfers", 422),
            ("/transfers?dry_run=true", 422),
            ("/%74ransfers", 422),
            ("/transfer%73", 422),
            ("/transfers/batch", 422),
            ("/transfers/%62atch", 422),
            ("http://a/transfers", 422),
            ("//transfers", 404),
            ("/transfers/", 404),
            ("/x/../transfers", 404),
            ("/./transfers", 404),
            ("/transfers%2Fbatch", 404),
            ("/transfers%20", 404),
            ("/transfers;x=1", 404),
            ("/Transfers", 404),
            ("/%2574ransfers", 404),
        ]
    ):
        token = await api_key(database, f"payer{number}", "transfers:write")
        with subtests.test(path=path):
            sent = f"Authorization: Bearer {token}"
            assert status_of(await asked(port_of(api), sent, path=path)) == status
            if status == 422:
                await until_limited(nginx.port, sent, path=path)
            else:
                # For a replica this is no payment, so Nginx may count it or not.
                assert await answered_at_once(nginx.port, sent, path=path) <= {status, 429}


@pytest.fixture(params=["replica", "nginx"])
async def door(request: pytest.FixtureRequest, replicas: Replicas) -> AsyncIterator[int]:
    """The port for requests: of a replica without API keys, or of the Nginx before it."""
    api = await replicas.start()
    if request.param == "replica":
        yield port_of(api)
        return
    async with running_nginx([urlsplit(api.url).netloc]) as nginx:
        yield nginx.port


_USER = {"path": "/users"}
# Repeated lines of headers that are not lists.
_TWICE: dict[str, tuple[list[str], str]] = {
    "a key": (["Authorization: Bearer x", "Authorization: Bearer x"], "malformed-request"),
    "an Idempotency-Key": (["Idempotency-Key: a", "Idempotency-Key: a"], "idempotency-key-invalid"),
    "an empty one and another": (
        ["Idempotency-Key:", "Idempotency-Key: a"],
        "idempotency-key-invalid",
    ),
    "a type": (["Content-Type: application/json"], "malformed-request"),
    "a length": (["Content-Length: 2"], "malformed-request"),
    "a host": (["Host: a"], "malformed-request"),
}


async def test_two_lines_of_a_header_that_is_not_a_list_are_refused(
    door: int, database: Database, subtests: pytest.Subtests
) -> None:
    for name, (lines, code) in _TWICE.items():
        with subtests.test(name):
            refused = await asked(door, *lines, **_USER)
            assert (status_of(refused), refused.code) == (400, code)
            assert await database.fetch("SELECT 1 FROM ledger_00.users") == []


async def test_two_ids_of_an_event_are_refused(door: int, replicas: Replicas) -> None:
    api = Api((await replicas.start()).session, replicas.opened[0].url)
    path = f"/wallets/{await api.wallet()}/events"
    lines = ["Last-Event-ID: 0", "Last-Event-ID: 0"]
    refused = await asked(door, *lines, path=path, method="GET", body="")
    assert (status_of(refused), refused.code) == (400, "malformed-request")


def header_of(ending: Ending, name: str) -> str:
    """A header of the answer."""
    [value] = [
        line.partition(": ")[2]
        for line in ending.answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        if line.lower().startswith(f"{name.lower()}: ")
    ]
    return value


async def test_a_request_id_is_kept_if_it_is_valid_and_sent_once(
    door: int, subtests: pytest.Subtests
) -> None:
    for sent, is_kept in (
        (["X-Request-Id: mine"], True),
        (["x-request-id:\tmine \t"], True),
        (["X-Request-Id: mine", "X-Request-Id: mine"], False),
        (["X-Request-Id: mine", "x-request-id: other"], False),
        (["X-Request-Id:", "X-Request-Id: mine"], False),
        (["X-Request-Id: mine, other"], False),
        (["X-Request-Id: mi ne"], False),
        (["X-Request-Id: " + "m" * 129], False),
        (["X_Request_Id: mine"], False),
    ):
        with subtests.test(sent=sent):
            answer = await asked(door, *sent, path="/currencies", method="GET", body="")
            assert status_of(answer) == 200
            assert (header_of(answer, "X-Request-Id") == "mine") is is_kept


async def test_ids_of_requests_and_traces_are_in_the_answers_and_the_log_of_nginx(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start()
    async with running_nginx([urlsplit(api.url).netloc]) as nginx:
        answer = await asked(nginx.port, "X-Request-Id: mine", path="/metrics", body="")
        assert (status_of(answer), answer.code) == (404, "not-found")
        assert orjson.loads(answer.answer.rpartition(b"\r\n\r\n")[2])["request_id"] == "mine"
        trace = f"00-{'1' * 32}-{'2' * 16}-01"
        once = await asked(nginx.port, f"traceparent: {trace}", **_USER)
        twice = await asked(nginx.port, *[f"traceparent: {trace}"] * 2, **_USER)
        assert header_of(once, "traceparent") == trace
        # W3C Trace Context: two headers count as none, so a new trace begins.
        assert header_of(twice, "traceparent") != trace
        await until(lambda: len(nginx.access_log()) >= 3)
        traces = [row["trace"] for row in nginx.access_log()]
        assert traces == ["", trace, header_of(twice, "traceparent")]
        assert nginx.access_log()[0]["request_id"] == "mine"


async def test_several_lines_of_content_encoding_are_one_list(door: int) -> None:
    for lines, status in (
        (["Content-Encoding: identity", "Content-Encoding: identity"], 201),
        (["Content-Encoding: identity, Identity ,"], 201),
        (["Content-Encoding: identity", "Content-Encoding: gzip"], 415),
        (["Content-Encoding: identity, gzip"], 415),
    ):
        assert status_of(await asked(door, *lines, **_USER)) == status, lines


async def test_several_lines_of_a_condition_are_one_list_or_refused(replicas: Replicas) -> None:
    api = await replicas.start()
    ada = await api.wallet()
    lines = ['If-Match: "w7"', 'If-Match: "w0"']
    request = {"path": f"/wallets/{ada}", "method": "PATCH", "body": '{"metadata":{"a":1}}'}
    async with running_nginx([urlsplit(api.url).netloc]) as nginx:
        # Nginx refuses a second line of this header. No condition can be bypassed that way.
        refused = await asked(nginx.port, *lines, **request)
        assert (status_of(refused), refused.code) == (400, "malformed-request")
        assert status_of(await asked(port_of(api), *lines, **request)) == 200
        listed = 'If-Match: "w7", "w1"'
        assert status_of(await asked(nginx.port, listed, **request)) == 200


@pytest.mark.parametrize("quoted", [False, True])
async def test_a_key_with_and_without_quotes_reaches_the_same_replica(
    quoted: bool, replicas: Replicas
) -> None:
    apis = [await replicas.start() for _ in range(3)]
    async with running_nginx([urlsplit(api.url).netloc for api in apis]) as nginx:
        for n in range(8):
            for key in (f"key-{n}", f'"key-{n}"' if quoted else f"key-{n}"):
                await asked(nginx.port, f"Idempotency-Key: {key}", **_USER)
        await until(lambda: len(nginx.access_log()) == 16)
        replies = [row["replica"] for row in nginx.access_log()]
        assert replies[::2] == replies[1::2]
        assert len(set(replies)) > 1
