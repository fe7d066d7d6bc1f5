"""Hostile bodies: each is refused or read exactly."""

import gc
import json
import math
import time
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.request_reader import ORIGIN, Reader
from tests.support.waiting import SLOWNESS
from transferd.config import Limits
from transferd.domain.money import AMOUNT_MINOR_MAX
from transferd.web.batch_schemas import NewBatch
from transferd.web.fields import metadata_text
from transferd.web.problems import Problem
from transferd.web.schemas import Body, NewReversal, NewTransfer, NewUser, NewWallet, WalletPatch
from transferd.web.webhook_schemas import NewWebhook

ADA, BOB = "0190b6a0-0000-7000-8000-00000000000a", "0190b6a0-0000-7000-8000-00000000000B"
GOOD: dict[type[Body], dict[str, Any]] = {
    NewTransfer: {
        "source_wallet_id": ADA,
        "destination_wallet_id": BOB,
        "amount": 2_500,
        "currency": "USD",
        "reference": "rent ä 🂡",
        "metadata": {"n": "m", "paid": True, "rate": 0.5, "count": 3, "none": None},
    },
    NewWallet: {"user_id": ADA, "currency": "USD", "initial_balance": 5, "overdraft_limit": 0},
    WalletPatch: {"overdraft_limit": 7, "metadata": {"n": "m"}},
    NewUser: {"name": "Ada", "metadata": {}},
    NewReversal: {"amount": 3},
    NewWebhook: {"url": "https://example.com/hook", "events": ["*"], "wallet_id": ADA},
}
MODELS = st.sampled_from(list(GOOD))
# Other parsers change some numbers.
EDGES = [0, 1, -1, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**40]
NUMBERS = st.one_of(
    st.sampled_from(EDGES + [-edge for edge in EDGES]),
    st.integers(),
    st.integers(-5, 5).flatmap(lambda off: st.sampled_from([edge + off for edge in EDGES])),
)
SCALARS = st.one_of(
    NUMBERS, st.floats(), st.booleans(), st.none(), st.text(), st.sampled_from([ADA, "USD", "*"])
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(reader: Reader, model: type[Body], raw: bytes) -> Body | None:
    """The value of a body; None if it was refused with a problem that quotes nothing of it."""
    try:
        return reader.read(model, raw)
    except Problem as problem:
        body = orjson.loads(problem.body(ORIGIN))
        assert body["code"] in {"malformed-json", "invalid-request", "body-too-large"}
        assert 400 <= body["status"] < 500
        assert "Traceback" not in body["detail"]
        if body["code"] == "invalid-request":
            assert 1 <= len(body["errors"]) <= Limits().field_errors_max
            assert all(error["code"] and error["message"] for error in body["errors"])
        return None


def assert_means(model: type[Body], raw: bytes, body: Body) -> None:
    """Assert that another JSON parser reads the same value."""
    said = json.loads(raw)
    assert set(said) <= set(model.model_fields)
    assert body.model_fields_set == set(said)
    for name, value in said.items():
        got = getattr(body, name)
        if name == "metadata" and value is None:
            assert got == {}
            continue
        is_id = name.endswith("_id") and value is not None
        assert got == (value.lower() if is_id else value)
        assert type(got) is type(value)
        if type(value) is int:
            assert 0 <= value <= AMOUNT_MINOR_MAX
    if isinstance(metadata := said.get("metadata"), dict):
        assert json.loads(metadata_text(metadata)) == metadata


@given(MODELS, st.binary(max_size=200))
@example(NewUser, b"\xff\xfe{\x00}\x00")
@example(NewUser, b'{"name":"\\ud800"}')
@example(NewUser, b'{"\\ud800":1}')
def test_any_bytes_are_refused_or_read_exactly(
    reader: Reader, model: type[Body], raw: bytes
) -> None:
    body = read(reader, model, raw)
    if body is not None:
        assert_means(model, raw, body)


@given(MODELS, ANY_JSON)
def test_any_json_is_refused_or_read_exactly(reader: Reader, model: type[Body], value: Any) -> None:
    raw = json.dumps(value).encode()
    body = read(reader, model, raw)
    if body is not None:
        assert_means(model, raw, body)


@settings(max_examples=150)
@given(MODELS, st.data())
def test_a_valid_body_with_one_other_value_is_refused_or_read_exactly(
    reader: Reader, model: type[Body], data: st.DataObject
) -> None:
    good = GOOD[model]
    name = data.draw(st.sampled_from([*good, "fee", "Amount", "a/b~c", ""]))
    raw = json.dumps(good | {name: data.draw(ANY_JSON)}).encode()
    body = read(reader, model, raw)
    if body is not None:
        assert_means(model, raw, body)


@settings(max_examples=150)
@given(MODELS, st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
def test_a_valid_body_with_other_bytes_is_refused_or_read_exactly(
    reader: Reader, model: type[Body], place: int, piece: bytes, lost: int
) -> None:
    good = orjson.dumps(GOOD[model])
    place %= len(good) + 1
    raw = good[:place] + piece + good[place + lost :]
    body = read(reader, model, raw)
    if body is not None:
        assert_means(model, raw, body)


@given(NUMBERS | st.booleans() | st.floats() | st.text(max_size=3))
def test_an_amount_is_a_whole_number_that_every_reader_can_hold(
    reader: Reader, amount: Any
) -> None:
    raw = json.dumps(GOOD[NewTransfer] | {"amount": amount}).encode()
    body = read(reader, NewTransfer, raw)
    is_good = type(amount) is int and 1 <= amount <= 2**53 - 1
    assert (body is not None) == is_good
    if body is not None:
        assert_means(NewTransfer, raw, body)


@given(
    st.sampled_from(["", "-"]), st.from_regex(r"[0-9]{1,30}(\.[0-9]{0,5})?([eE][+-]?[0-9]{1,4})?")
)
def test_an_amount_is_written_in_digits_alone(reader: Reader, sign: str, digits: str) -> None:
    written = sign + digits.strip()
    raw = orjson.dumps(GOOD[NewTransfer]).replace(b"2500", written.encode())
    body = read(reader, NewTransfer, raw)
    is_plain = written.isdecimal() and not (written.startswith("0") and len(written) > 1)
    assert (body is not None) == (is_plain and 1 <= int(written) <= 2**53 - 1)


@given(st.dictionaries(st.text(), SCALARS | st.lists(st.integers(), max_size=1)))
def test_metadata_comes_back_as_it_was_sent(reader: Reader, metadata: dict[str, Any]) -> None:
    raw = json.dumps({"metadata": metadata}).encode()
    body = read(reader, NewUser, raw)
    if body is None:
        return
    assert isinstance(body, NewUser)
    for value in metadata.values():
        assert not isinstance(value, list)
        assert not isinstance(value, float) or math.isfinite(value)
    text = metadata_text(body.metadata)
    assert len(text.encode()) <= Limits().metadata_bytes_max
    assert "\x00" not in text
    assert json.loads(text) == metadata


@given(st.lists(st.sampled_from([GOOD[NewTransfer], {}, None, 5, GOOD[NewUser]]), max_size=5))
def test_a_batch_is_good_if_all_of_it_is(reader: Reader, transfers: list[Any]) -> None:
    raw = orjson.dumps({"mode": "atomic", "transfers": transfers})
    body = read(reader, NewBatch, raw)
    assert (body is not None) == (
        bool(transfers) and all(each is GOOD[NewTransfer] for each in transfers)
    )


_DEEP = 100_000
_LONG = 3_900_000


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * _DEEP,
        b'{"a":' * _DEEP,
        b'{"metadata":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
        b'{"mode":"atomic","transfers":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
        b'{"mode":"atomic","transfers":[' + b"[]," * (_LONG // 3) + b"[]]}",
        b'{"mode":"atomic","transfers":[' + b"{}," * (_LONG // 3) + b"{}]}",
        b"{" + b",".join(b'"%d":1' % n for n in range(300_000)) + b"}",
        b'{"mode":"' + b"x" * _LONG + b'"}',
        b'{"mode":"' + b"\\u0041" * (_LONG // 6) + b'"}',
        b'{"mode":' + b"9" * _LONG + b"}",
        b'{"mode":1e' + b"9" * _LONG + b"}",
        b" " * _LONG,
    ],
    ids=[
        *("brackets", "braces", "deep metadata", "deep transfers", "many lists", "many objects"),
        *("many members", "long text", "long escapes", "long number", "long exponent", "blanks"),
    ],
)
def test_the_largest_bodies_are_refused_quickly(raw: bytes, reader: Reader) -> None:
    # The limit of a batch; other bodies have a limit a hundred times lower.
    bytes_max = Limits().batch_body_bytes_max
    assert len(raw) <= bytes_max
    # Otherwise the garbage collector visits the objects of all other tests repeatedly.
    gc.freeze()
    started = time.process_time()
    with pytest.raises(Problem) as caught:
        reader.read(NewBatch, raw, bytes_max=bytes_max)
    took_s = time.process_time() - started
    gc.unfreeze()
    assert caught.value.code in {"malformed-json", "invalid-request"}
    # Other requests wait meanwhile. On the reference machine it takes half a second.
    assert took_s < 4.0 * SLOWNESS
    # The answer does not grow with the request.
    assert len(caught.value.body(ORIGIN)) < 32 * 1024
