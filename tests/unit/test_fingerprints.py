"""Fingerprints: the same for every spelling of a request, and the same as in earlier versions."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.support.json_spellings import spelled
from tests.support.request_reader import ORIGIN, request_of
from transferd.actors.ledgers import OpenLedger
from transferd.commit.answer import Answer
from transferd.config import Limits
from transferd.domain.key import Fingerprint
from transferd.domain.ledger import MAIN
from transferd.web.auth import local_client
from transferd.web.calls import Call
from transferd.web.context import AppContext
from transferd.web.operations import Handler
from transferd.web.routes import transfers, users, wallets

ADA, BOB = "01900000-0000-7000-8000-00000000000a", "01900000-0000-7000-8000-00000000000b"
MONEY = {
    "source_wallet_id": ADA,
    "destination_wallet_id": BOB,
    "amount": 2_500,
    "currency": "USD",
}
ORDERED = {"": None, "a": 1, "b": "x", "c": True, "d": 0.1, "e": 1e300, "ä": "ö\n"}
AB, BA = {"a": 1, "b": 2}, {"b": 2, "a": 1}
WALLET = {"user_id": ADA, "currency": "EUR"}
REVERSAL = f"/transfers/{ADA}/reversal"
ROUTES: dict[str, Handler] = {
    "/transfers": transfers.create,
    "/transfers/batch": transfers.create_batch,
    REVERSAL: transfers.reverse,
    "/wallets": wallets.create,
    "/users": users.create,
}


class Asker:
    """Sends bodies to routes whose router only records the fingerprint."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.asked: list[Fingerprint] = []

    async def ask(self, envelope: Any) -> Answer:
        self.asked.append(envelope.fingerprint)
        return Answer(201, b'{"id":"%b"}' % ADA.encode())

    async def fetch(self, *_: object, **__: object) -> list[object]:
        # There is no transfer to reverse; its fingerprint does not depend on that.
        return []

    def fingerprint(self, path: str, body: object) -> Fingerprint:
        """The fingerprint of a POST with this body; bytes are sent unchanged."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def send() -> None:
            headers = {"Content-Type": "application/json", "Idempotency-Key": "rent"}
            request = request_of(path, headers.items(), raw)
            context = SimpleNamespace(limits=Limits(), clock=lambda: 0.0)
            ledger = SimpleNamespace(
                database=self,
                router=self,
                batches=asyncio.Semaphore(1),
                funding_wallet_ids=frozenset(),
                currencies={"EUR": SimpleNamespace(funding_wallet_id=BOB)},
            )
            call = Call(cast(AppContext, context), request, ORIGIN)
            call.principal = local_client(MAIN)
            call.ledger = cast(OpenLedger, ledger)
            call.path = {"id": ADA.upper()}
            await ROUTES[path](call)

        self._runner.run(send())
        return self.asked.pop()


@pytest.fixture(scope="module")
def asker() -> Iterator[Asker]:
    with asyncio.Runner() as runner:
        yield Asker(runner)


def batch(mode: str, *metadata: dict[str, Any]) -> dict[str, Any]:
    return {"mode": mode, "transfers": [MONEY | {"metadata": each} for each in metadata]}


# Computed by the code before fingerprints had a canonical form (commit 67f0da3).
_KEPT = [
    ("/transfers", MONEY, "2d48c9e29339bc7af717ec3f8cec1451"),
    (
        "/transfers",
        MONEY | {"reference": 'June "rent" äöü'},
        "525c6e3a3b986a65ab0df0107f4395e5",
    ),
    ("/transfers", MONEY | {"metadata": ORDERED}, "589660e43f09fab161cb4660576c56f9"),
    ("/transfers/batch", batch("atomic", {}, AB), "c49997038f327f652b1ca42ced27821c"),
    (REVERSAL, {}, "86c45b5c04ea2c38fd80025088bf99e8"),
    (REVERSAL, {"amount": 5}, "9a83dfcbe044b3e7248aeb7f3e63b6b0"),
    ("/wallets", WALLET, "420c177a4ad6a345b63300e99a209dd4"),
    (
        "/wallets",
        WALLET | {"initial_balance": 100, "overdraft_limit": 50, "metadata": AB},
        "e6a4950e38c7df0080d3b5169af5274a",
    ),
    ("/users", {}, "5683dd3c20170d435b302e3e6918eca2"),
    ("/users", {"name": "Ada", "metadata": {"a": 1}}, "c85df7398d929527ee9d534fbd6c7c09"),
]
_KEPT_AS_SENT = [
    (
        "/transfers",
        MONEY | {"metadata": {"po": "7", "invoice": "4711"}},
        "baa523acd29aabd802ffc3089669a083",
    ),
    ("/transfers", MONEY | {"metadata": {"n": 1.0}}, "ec650ccb2b7ee2f6f03d0c7d28f58a10"),
    ("/transfers/batch", batch("independent", {}, BA), "effe74b96590862f9c6c53d13f0a38ca"),
]


@pytest.mark.parametrize(("path", "body", "kept"), _KEPT)
def test_a_canonical_request_has_the_fingerprint_of_earlier_versions(
    asker: Asker, path: str, body: object, kept: str
) -> None:
    # The old rule is not computed where it gives the same result.
    assert asker.fingerprint(path, body) == Fingerprint(bytes.fromhex(kept))


@pytest.mark.parametrize(("path", "body", "kept"), _KEPT_AS_SENT)
def test_a_request_that_is_not_canonical_also_has_the_fingerprint_of_earlier_versions(
    asker: Asker, path: str, body: object, kept: str
) -> None:
    fingerprint = asker.fingerprint(path, body)
    assert fingerprint.as_sent == bytes.fromhex(kept)
    assert fingerprint.value != fingerprint.as_sent
    assert fingerprint.matches(fingerprint.value)
    assert fingerprint.matches(bytes.fromhex(kept))
    assert not fingerprint.matches(bytes(16))


def test_a_reversal_without_optional_fields_has_the_fingerprint_of_earlier_versions(
    asker: Asker,
) -> None:
    kept = bytes.fromhex("9a83dfcbe044b3e7248aeb7f3e63b6b0")
    left_out: list[dict[str, Any]] = [
        {"reference": None},
        {"metadata": {}},
        {"reference": None, "metadata": None},
    ]
    for more in left_out:
        assert asker.fingerprint(REVERSAL, {"amount": 5} | more) == Fingerprint(kept)
    differing: list[dict[str, Any]] = [
        {},
        {"reference": ""},
        {"reference": "rent"},
        {"metadata": {"reference": "rent"}},
        {"reference": "rent", "metadata": {"a": 1}},
    ]
    fingerprints = {asker.fingerprint(REVERSAL, {"amount": 5} | more).value for more in differing}
    assert len(fingerprints) == 5


NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=3)
VALUES = st.one_of(
    NAMES,
    st.booleans(),
    st.none(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-3, 3).map(float),
)
METADATA = st.dictionaries(NAMES, VALUES, max_size=4)
TRANSFERS = st.builds(
    lambda reference, metadata: MONEY | {"reference": reference, "metadata": metadata},
    st.none() | NAMES,
    METADATA,
)
REQUESTS = st.one_of(
    st.tuples(st.just("/transfers"), TRANSFERS),
    st.tuples(
        st.just("/transfers/batch"),
        st.builds(
            lambda transfers: {"mode": "atomic", "transfers": transfers},
            st.lists(TRANSFERS, min_size=1, max_size=3),
        ),
    ),
    st.tuples(
        st.just(REVERSAL),
        st.builds(lambda r, m: {"reference": r, "metadata": m}, st.none() | NAMES, METADATA),
    ),
    st.tuples(st.just("/wallets"), METADATA.map(lambda m: WALLET | {"metadata": m})),
    st.tuples(st.just("/users"), METADATA.map(lambda m: {"metadata": m})),
)


@given(REQUESTS, st.data())
def test_every_spelling_of_a_request_has_the_same_fingerprint(
    asker: Asker, request: tuple[str, Any], data: st.DataObject
) -> None:
    path, body = request
    first, again = (
        asker.fingerprint(path, data.draw(spelled(body)).encode()).value for _ in range(2)
    )
    assert first == again == asker.fingerprint(path, body).value


def by_the_old_rule(path: str, body: Any) -> Any:
    """The request with canonical metadata, which the old rule does not change."""
    if isinstance(body, list):
        return [by_the_old_rule(path, each) for each in body]
    if not isinstance(body, dict):
        return body
    return {
        name: orjson.loads(orjson.dumps(_integers(value), option=orjson.OPT_SORT_KEYS))
        if name == "metadata"
        else by_the_old_rule(path, value)
        for name, value in body.items()
    }


def _integers(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        name: int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        else value
        for name, value in metadata.items()
    }


@given(REQUESTS)
def test_both_rules_agree_only_on_the_canonical_form(
    asker: Asker, request: tuple[str, Any]
) -> None:
    path, body = request
    canonical = by_the_old_rule(path, body)
    fingerprint = asker.fingerprint(path, canonical)
    assert fingerprint.as_sent is None
    is_canonical = json.dumps(canonical) == json.dumps(body)
    assert (asker.fingerprint(path, body).as_sent is None) == is_canonical


@given(METADATA, METADATA)
@example({"n": 1}, {"n": True})
@example({"n": 0}, {"n": False})
@example({"n": 1}, {"n": "1"})
@example({"n": None}, {})
@example({"n": 0.1}, {"n": 0.10000000000000002})
def test_other_metadata_is_another_request(
    asker: Asker, some: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = (
        {(name, isinstance(value, bool), value) for name, value in metadata.items()}
        for metadata in (some, other)
    )
    assume(first != second)
    fingerprints = [
        asker.fingerprint("/transfers", MONEY | {"metadata": metadata})
        for metadata in (some, other)
    ]
    assert fingerprints[0].value != fingerprints[1].value
