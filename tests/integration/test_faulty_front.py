"""The proxy with a planted fault: true but for that one fault, which it does when it says so."""

from functools import partial
from time import monotonic

import pytest

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import AMOUNT_MAX, NOBODY, assert_is_id, time_of, transfer_body
from tests.support.faulty_front import Fault, faulty_front
from transferd.devstack.ports import free_port

# Headers that differ between answers, or belong to a connection.
VOLATILE = {"connection", "date", "x-request-id", "traceparent"}


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


@pytest.mark.parametrize("fault", [None, *Fault])
async def test_what_does_not_fit_the_fault_is_passed_on_unchanged(
    fault: Fault | None, api: Api, ada: str, bob: str
) -> None:
    for _ in range(2):
        await api.transfer(ada, bob, 1)
    etag = (await api.get(f"/wallets/{bob}")).headers["ETag"]
    body, huge = transfer_body(ada, bob, 1), b'{"name": "%s"}' % (b"x" * 2**21)
    requests = [
        partial(Api.get, path=f"/transfers?wallet_id={ada}&limit=1"),
        partial(Api.get, path=f"/transfers/{NOBODY}"),
        partial(Api.get, path=f"/wallets/{ada}/statement?to=2000-01-01T00%3A00%3A00Z"),
        partial(Api.get, path=f"/wallets/{bob}", headers={"If-None-Match": etag}),
        partial(Api.get, path="/nowhere/%2F%20?a=%26&b", headers={"X-Request-ID": "mine"}),
        partial(Api.call, method="HEAD", path="/currencies"),
        partial(Api.call, method="DELETE", path="/transfers"),
        partial(Api.post, path="/transfers?dry_run=true", body=body),
        partial(Api.patch, path=f"/wallets/{bob}", body={"colour": "red"}),
        partial(Api.call, method="POST", path="/users", raw=huge),
        partial(
            Api.call, method="POST", path="/users", raw=b"...", headers={"Content-Encoding": "gzip"}
        ),
    ]
    async with faulty_front(api.url, fault) as front:
        fronted = Api(api.session, front.url)
        for request in requests:
            straight, passed = await request(api), await request(fronted)
            assert passed.status == straight.status, request
            assert lasting(passed) == lasting(straight), request
            if passed.body or straight.body:
                assert without_ids(passed) == without_ids(straight), request
        assert front.planted == 0
        assert repr(front).endswith("planted 0 times>")


async def test_a_target_that_is_away_is_a_bad_gateway(api: Api) -> None:
    async with faulty_front(f"http://127.0.0.1:{free_port()}", None) as front:
        reply = await Api(api.session, front.url).get("/currencies", {"X-Request-ID": "mine"})
    assert (reply.status, reply.code, reply.headers["X-Request-ID"]) == (502, "bad-gateway", "mine")


def differences(first: Reply, second: Reply) -> set[str]:
    assert list(first.json) == list(second.json)
    return {name for name, value in second.json.items() if value != first.json[name]}


# Two payments of 5, with one key or with two: their statuses, what Bob has then, and how often the
# fault was done.
PAYMENTS = [
    pytest.param(Fault.LOST, "k1 k2", "201 201", 5, 1, id="the second is lost"),
    pytest.param(Fault.DOUBLED, "k1 k2", "201 201", 15, 1, id="the second is made twice"),
    pytest.param(Fault.CHANGED_REPLAY, "k1 k1", "201 201", 5, 1, id="the replay differs"),
    pytest.param(Fault.CHANGED_REPLAY, "k1 k2", "201 201", 10, 0, id="no replay"),
    pytest.param(Fault.NEW_ON_REPLAY, "k1 k1", "201 201", 10, 1, id="paid anew"),
    pytest.param(Fault.WRONG_AMOUNT, "k1 k2", "201 201", 10, 1, id="another amount is told"),
    pytest.param(Fault.FAILING, "k1 k2", "201 500", 5, 1, id="the second fails"),
    pytest.param(Fault.BUSY, "k1 k2", "201 429", 5, 1, id="the second is turned away"),
    pytest.param(Fault.BUSY, "k1 k2 k2", "201 429 201", 10, 1, id="and comes again"),
]


@pytest.mark.parametrize(("fault", "keys", "statuses", "balance", "planted"), PAYMENTS)
async def test_a_payment_suffers_the_fault(
    api: Api,
    ada: str,
    bob: str,
    *,
    fault: Fault,
    keys: str,
    statuses: str,
    balance: int,
    planted: int,
) -> None:
    every = 1 if keys == "k1 k1" else 2
    async with faulty_front(api.url, fault, every=every) as front:
        fronted = Api(api.session, front.url)
        replies = [await fronted.transfer(ada, bob, 5, key=key) for key in keys.split()]
    assert [reply.status for reply in replies] == [int(each) for each in statuses.split()]
    assert await api.balance(bob) == balance
    assert front.planted == planted
    first, second = replies[:2]
    if fault is Fault.LOST:
        assert_is_id(second.json["id"])
        assert time_of(second.json["created_at"]) > time_of(first.json["created_at"])
        changed = {"id", "created_at", "source_version", "source_balance_after"}
        assert differences(first, second) == changed
        assert (await api.get(f"/transfers/{second.json['id']}")).code == "transfer-not-found"
    elif fault is Fault.CHANGED_REPLAY and planted:
        assert differences(first, second) == {"created_at"}
        assert second.headers["Idempotent-Replayed"] == "true"
    elif fault is Fault.NEW_ON_REPLAY:
        assert "id" in differences(first, second)
        assert "Idempotent-Replayed" not in second.headers
    elif fault is Fault.WRONG_AMOUNT:
        assert second.json["amount"] == 6
        assert (await api.get(f"/transfers/{second.json['id']}")).json["amount"] == 5
    elif fault is Fault.FAILING:
        assert second.code == "internal-error"
    elif fault is Fault.BUSY:
        assert (second.code, second.headers["Retry-After"]) == ("mailbox-full", "1")


async def test_what_would_not_have_been_paid_is_not_lost(api: Api, ada: str, bob: str) -> None:
    async with faulty_front(api.url, Fault.LOST, every=1) as front:
        fronted = Api(api.session, front.url)
        refused = await fronted.transfer(ada, bob, 101)
        wrong = await fronted.transfer(ada, bob, 1, colour="red")
        keyless = await fronted.post("/transfers", transfer_body(ada, bob))
        malformed = await fronted.call("POST", "/transfers", raw=b"{", key="k")
        assert front.planted == 0
    codes = [reply.code for reply in (refused, wrong, keyless, malformed)]
    assert codes[:2] == ["insufficient-funds", "invalid-request"]
    assert codes[2:] == ["idempotency-key-missing", "malformed-json"]


async def test_what_could_not_be_doubled_does_not_count(api: Api, ada: str, bob: str) -> None:
    async with faulty_front(api.url, Fault.DOUBLED, every=1) as front:
        assert (await Api(api.session, front.url).transfer(ada, bob, 60)).status == 201
        assert front.planted == 0
    assert await api.balance(bob) == 60


async def test_a_double_credit_is_money_from_nowhere(
    api: Api, database: Database, ada: str, bob: str
) -> None:
    async def damage(wallet: str, amount_minor: int) -> None:
        await database.fetch(
            "UPDATE ledger_00.wallets SET balance = balance + $2 WHERE id = $1::uuid",
            wallet,
            amount_minor,
        )

    async with faulty_front(api.url, Fault.DOUBLE_CREDIT, every=1, damage=damage) as front:
        paid = await Api(api.session, front.url).transfer(ada, bob, 5)
        assert (paid.status, front.planted) == (201, 1)
    # The next payment starts from it, so the API shows it as well.
    assert (await api.transfer(ada, bob, 1)).status == 201
    assert await api.balance(bob) == 11


async def test_a_stale_read_is_the_first_one_for_ever(api: Api, ada: str, bob: str) -> None:
    async with faulty_front(api.url, Fault.STALE_READ) as front:
        fronted = Api(api.session, front.url)
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


async def test_a_slow_payment_is_late_and_a_read_is_not(api: Api, ada: str, bob: str) -> None:
    async with faulty_front(api.url, Fault.SLOW, every=1, slow_s=0.2) as front:
        fronted = Api(api.session, front.url)
        started = monotonic()
        assert (await fronted.transfer(ada, bob, 5)).status == 201
        assert monotonic() - started >= 0.2
        assert await fronted.balance(bob) == 5
        assert front.planted == 1


async def test_nonsense_brings_it_down(api: Api, ada: str, bob: str) -> None:
    async with faulty_front(api.url, Fault.CRASHING_ON_NONSENSE) as front:
        fronted = Api(api.session, front.url)
        crashed = await fronted.call("POST", "/transfers", raw=b'{"amount": \xff', key="k")
        refused = await fronted.transfer(ada, bob, AMOUNT_MAX + 1)
        assert (await fronted.transfer(ada, bob, 1)).status == 201
        assert front.planted == 1
    assert (crashed.status, crashed.code) == (500, "internal-error")
    assert refused.code == "invalid-request"
