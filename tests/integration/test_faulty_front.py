"""The proxy with a planted fault: true but for that one fault, which it does when it says so."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from time import monotonic
from uuid import uuid4

import pytest

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import AMOUNT_MAX, NOBODY, assert_is_id, time_of, transfer_body
from tests.support.faulty_front import Fault, FaultyFront, faulty_front
from tests.support.pressure import crowd, statuses
from tests.support.truth import faults_in
from transferd.devstack.ports import free_port

# Headers that differ between answers, or belong to a connection.
VOLATILE = {"connection", "date", "x-request-id", "traceparent"}

Front = Callable[..., AbstractAsyncContextManager[tuple[Api, FaultyFront]]]


@pytest.fixture
def behind(api: Api) -> Front:
    """Opens a client that reaches the replica by way of a proxy, and the proxy."""

    @asynccontextmanager
    async def opened(
        fault: Fault | None, **options: object
    ) -> AsyncIterator[tuple[Api, FaultyFront]]:
        async with faulty_front(api.url, fault, **options) as front:  # type: ignore[arg-type]
            yield Api(api.session, front.url), front

    return opened


@pytest.fixture
async def ada(api: Api) -> str:
    """A wallet with 100."""
    return await api.wallet(100)


@pytest.fixture
async def bob(api: Api) -> str:
    """A wallet with nothing."""
    return await api.wallet()


def lasting(reply: Reply) -> dict[str, str]:
    """The headers of an answer that do not differ from one time to the next."""
    return {name: value for name, value in reply.headers.items() if name.lower() not in VOLATILE}


def without_ids(reply: Reply) -> object:
    """The body of an answer, without the id of its request if it is a problem."""
    is_problem = reply.headers.get("Content-Type") == "application/problem+json"
    return {**reply.json, "request_id": None} if is_problem else reply.body


# It passes on


@pytest.mark.parametrize("fault", [None, *Fault])
async def test_what_does_not_fit_the_fault_is_passed_on_unchanged(
    fault: Fault | None, api: Api, behind: Front, ada: str, bob: str
) -> None:
    for _ in range(2):
        await api.transfer(ada, bob, 1)
    body, huge = transfer_body(ada, bob, 1), b'{"name": "%s"}' % (b"x" * 2**21)
    requests = [
        partial(Api.get, path=f"/transfers?wallet_id={ada}&limit=1"),
        partial(Api.get, path=f"/transfers/{NOBODY}"),
        partial(Api.get, path=f"/wallets/{ada}/statement?to=2000-01-01T00%3A00%3A00Z"),
        partial(Api.get, path="/nowhere/%2F%20?a=%26&b"),
        partial(Api.get, path="/currencies"),
        partial(Api.call, method="HEAD", path="/currencies"),
        partial(Api.call, method="DELETE", path="/transfers"),
        partial(Api.post, path="/transfers?dry_run=true", body=body),
        partial(Api.patch, path=f"/wallets/{bob}", body={"colour": "red"}),
        partial(Api.call, method="POST", path="/users", raw=huge),
        partial(
            Api.call, method="POST", path="/users", raw=b"...", headers={"Content-Encoding": "gzip"}
        ),
    ]
    async with behind(fault) as (fronted, front):
        for request in requests:
            straight, passed = await request(api), await request(fronted)
            assert passed.status == straight.status, request
            assert lasting(passed) == lasting(straight), request
            if passed.body or straight.body:
                assert without_ids(passed) == without_ids(straight), request
        assert 'rel="next"' in (await requests[0](fronted)).headers["Link"]
        assert front.planted == 0


async def test_a_wallet_that_has_not_changed_is_answered_by_304(behind: Front, ada: str) -> None:
    async with behind(None) as (api, _):
        first = await api.get(f"/wallets/{ada}")
        again = await api.get(f"/wallets/{ada}", {"If-None-Match": first.headers["ETag"]})
        other = await api.get(f"/wallets/{ada}?min_version=99")
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert other.code == "version-not-reached"


async def test_a_repeated_payment_is_a_replay(behind: Front, ada: str, bob: str) -> None:
    async with behind(None) as (api, _):
        first, again = [await api.transfer(ada, bob, 5, key="k") for _ in range(2)]
    assert first.status == again.status == 201
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.body == first.body


async def test_the_id_of_a_request_is_handed_on(behind: Front) -> None:
    async with behind(None) as (api, _):
        reply = await api.get("/currencies", {"X-Request-ID": "mine"})
    assert reply.headers["X-Request-ID"] == "mine"


async def test_a_target_that_is_away_is_a_bad_gateway(api: Api) -> None:
    async with faulty_front(f"http://127.0.0.1:{free_port()}", None) as front:
        reply = await Api(api.session, front.url).get("/currencies")
    assert (reply.status, reply.code) == (502, "bad-gateway")


# It does its fault


async def test_a_lost_payment_looks_like_one_that_was_made(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    async with behind(Fault.LOST, every=2) as (fronted, front):
        real, lost = [await fronted.transfer(ada, bob, 5, reference="rent") for _ in range(2)]
        assert front.planted == 1
    assert real.status == lost.status == 201
    assert list(lost.json) == list(real.json)
    assert_is_id(lost.json["id"])
    assert time_of(lost.json["created_at"]) > time_of(real.json["created_at"])
    assert lost.json["source_version"] == real.json["source_version"] + 1
    assert lost.json["source_balance_after"] == 90
    for name in ("amount", "reference", "metadata", "status", "kind", "destination_wallet_id"):
        assert lost.json[name] == real.json[name]
    assert (await api.get(f"/transfers/{lost.json['id']}")).code == "transfer-not-found"
    assert await api.balance(bob) == 5


async def test_what_would_not_have_been_paid_is_not_lost(behind: Front, ada: str, bob: str) -> None:
    async with behind(Fault.LOST, every=1) as (api, front):
        refused = await api.transfer(ada, bob, 101)
        wrong = await api.transfer(ada, bob, 1, colour="red")
        keyless = await api.post("/transfers", transfer_body(ada, bob))
        malformed = await api.call("POST", "/transfers", raw=b"{", key="k")
        assert front.planted == 0
    codes = [reply.code for reply in (refused, wrong, keyless, malformed)]
    assert codes[:2] == ["insufficient-funds", "invalid-request"]
    assert codes[2:] == ["idempotency-key-missing", "malformed-json"]


async def test_a_doubled_payment_moves_the_money_twice(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    async with behind(Fault.DOUBLED, every=1, at_most=1) as (fronted, front):
        assert (await fronted.transfer(ada, bob, 5)).status == 201
        assert (await fronted.transfer(ada, bob, 5)).status == 201
        assert front.planted == 1
    assert await api.balance(bob) == 15


async def test_what_could_not_be_doubled_does_not_count(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    async with behind(Fault.DOUBLED, every=1) as (fronted, front):
        assert (await fronted.transfer(ada, bob, 60)).status == 201
        assert front.planted == 0
    assert await api.balance(bob) == 60


async def test_a_double_credit_is_money_from_nowhere(
    behind: Front, api: Api, database: Database, ada: str, bob: str
) -> None:
    async def damage(wallet: str, amount_minor: int) -> None:
        await database.fetch(
            "UPDATE ledger_00.wallets SET balance = balance + $2 WHERE id = $1::uuid",
            wallet,
            amount_minor,
        )

    async with behind(Fault.DOUBLE_CREDIT, every=1, damage=damage) as (fronted, front):
        paid = await fronted.transfer(ada, bob, 5)
        assert (paid.status, front.planted) == (201, 1)
    assert [fault.split(",")[0] for fault in await faults_in(database)] == [
        "USD adds up to 5",
        f"wallet {bob} has 10 at version 1",
    ]
    # The next payment starts from it, so the API shows it as well.
    assert (await api.transfer(ada, bob, 1)).status == 201
    assert await api.balance(bob) == 11


async def test_a_changed_replay_differs_in_its_time_only(behind: Front, ada: str, bob: str) -> None:
    async with behind(Fault.CHANGED_REPLAY) as (api, front):
        first, again = [await api.transfer(ada, bob, 5, key="k") for _ in range(2)]
        assert front.planted == 1
    assert again.headers["Idempotent-Replayed"] == "true"
    changed = {name for name, value in again.json.items() if value != first.json[name]}
    assert changed == {"created_at"}
    assert len(again.body) == len(first.body)


async def test_a_payment_anew_on_its_repetition_is_a_second_one(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    async with behind(Fault.NEW_ON_REPLAY) as (fronted, front):
        first, again = [await fronted.transfer(ada, bob, 5, key="k") for _ in range(2)]
        other = await fronted.transfer(ada, bob, 6, key="k")
        assert front.planted == 1
    assert first.status == again.status == 201
    assert again.json["id"] != first.json["id"]
    assert "Idempotent-Replayed" not in again.headers
    assert other.code == "idempotency-key-reused"
    assert await api.balance(bob) == 10


async def test_a_stale_read_is_the_first_one_for_ever(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    async with behind(Fault.STALE_READ) as (fronted, front):
        first = await fronted.get(f"/wallets/{ada}")
        await api.transfer(ada, bob, 5)
        version = (await api.get(f"/wallets/{ada}")).headers["ETag"]
        stale = [
            await fronted.get(f"/wallets/{ada}"),
            await fronted.get(f"/wallets/{ada}?min_version=2"),
            await fronted.get(f"/wallets/{ada}", {"If-None-Match": version}),
        ]
        assert await fronted.balance(bob) == 5
        assert front.planted == 3
    assert {(reply.status, reply.body) for reply in stale} == {(200, first.body)}
    assert {reply.headers["ETag"] for reply in stale} == {first.headers["ETag"]}
    assert len({reply.headers["X-Request-ID"] for reply in stale}) == 3


async def test_a_wrong_amount_is_in_the_answer_only(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    async with behind(Fault.WRONG_AMOUNT, every=1) as (fronted, front):
        paid = await fronted.transfer(ada, bob, 5)
        assert front.planted == 1
    assert (paid.status, paid.json["amount"]) == (201, 6)
    assert (await api.get(f"/transfers/{paid.json['id']}")).json["amount"] == 5


async def test_a_slow_payment_is_late_and_a_read_is_not(behind: Front, ada: str, bob: str) -> None:
    async with behind(Fault.SLOW, every=1, slow_s=0.2) as (api, front):
        started = monotonic()
        assert (await api.transfer(ada, bob, 5)).status == 201
        assert monotonic() - started >= 0.2
        assert await api.balance(bob) == 5
        assert front.planted == 1


async def test_a_failing_payment_never_reaches_the_service(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    async with behind(Fault.FAILING, every=3) as (fronted, front):
        replies = [await fronted.transfer(ada, bob, 1) for _ in range(7)]
        assert front.planted == 2
    assert [reply.status for reply in replies] == [201, 201, 500, 201, 201, 500, 201]
    assert replies[2].code == "internal-error"
    assert replies[2].json["request_id"] == replies[2].headers["X-Request-ID"]
    assert await api.balance(bob) == 5


async def test_a_busy_service_says_when_to_come_again(
    behind: Front, api: Api, ada: str, bob: str
) -> None:
    key = str(uuid4())
    async with behind(Fault.BUSY) as (fronted, _):
        assert (await fronted.transfer(ada, bob, 1)).status == 201
        away = await fronted.transfer(ada, bob, 1, key=key)
        again = await fronted.transfer(ada, bob, 1, key=key)
    assert (away.status, away.code, away.headers["Retry-After"]) == (429, "mailbox-full", "1")
    assert again.status == 201
    assert await api.balance(bob) == 2


async def test_nonsense_brings_it_down(behind: Front, ada: str, bob: str) -> None:
    async with behind(Fault.CRASHING_ON_NONSENSE) as (api, front):
        crashed = await api.call("POST", "/transfers", raw=b'{"amount": \xff', key="k")
        refused = await api.transfer(ada, bob, AMOUNT_MAX + 1)
        assert (await api.transfer(ada, bob, 1)).status == 201
        assert front.planted == 1
    assert (crashed.status, crashed.code) == (500, "internal-error")
    assert refused.code == "invalid-request"


async def test_it_plants_no_more_than_it_was_told_also_for_a_crowd(
    behind: Front, ada: str, bob: str
) -> None:
    async with behind(Fault.FAILING, every=5, at_most=3) as (api, front):
        replies = await crowd(api.transfer(ada, bob, 1) for _ in range(50))
        assert repr(front) == "<FaultyFront FAILING, planted 3 times>"
    assert statuses(replies) == {201: 47, 500: 3}
