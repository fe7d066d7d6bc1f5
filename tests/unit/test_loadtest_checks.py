"""Complaints of the load test about answers: a table for each kind of answer."""

from typing import Any

import pytest

from loadtest.proof.complaints import (
    batch_complaint,
    hold_complaint,
    refusal_complaint,
    statement_complaint,
    transfer_complaint,
    wallet_complaint,
)

JsonObject = dict[str, Any]
# Instead of a value: the field is missing.
MISSING: Any = object()


def changed(document: JsonObject, **changes: Any) -> JsonObject:
    return {name: value for name, value in (document | changes).items() if value is not MISSING}


ASKED = {"source_wallet_id": "ada", "destination_wallet_id": "bob", "amount": 5, "currency": "USD"}
POSTED = ASKED | {
    "id": "01900000-0000-7000-8000-000000000001",
    "kind": "transfer",
    "status": "posted",
    "source_version": 4,
    "source_balance_after": 0,
}
REFUSED = {"request_id": "r", "detail": "no", "code": "wallet-frozen"}
SHORT = {
    "request_id": "r",
    "detail": "no",
    "code": "insufficient-funds",
    "available": 3,
    "shortfall": 2,
}


# Transfers


@pytest.mark.parametrize("field", ASKED)
@pytest.mark.parametrize("value", ["other", None, MISSING])
def test_a_transfer_agrees_with_the_request(field: str, value: Any) -> None:
    assert transfer_complaint(ASKED, POSTED) is None
    complaint = transfer_complaint(ASKED, changed(POSTED, **{field: value}))
    found = None if value is MISSING else value
    assert complaint == f"{field} is {found!r}, asked for {ASKED[field]!r}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "reversal"}, "kind 'reversal'"),
        ({"kind": MISSING}, "kind None"),
        ({"status": "refused"}, "status 'refused'"),
        ({"source_version": MISSING}, "source_version is None"),
        ({"source_version": "4"}, "source_version is '4'"),
        ({"source_balance_after": 1.5}, "source_balance_after is 1.5"),
        ({"id": MISSING}, "id is None"),
        ({"id": 36}, "id is 36"),
        ({"id": "1" * 37}, "id is '1"),
        ({"id": ["1"] * 36}, "id is ['1'"),
    ],
)
def test_a_transfer_without_its_result_is_a_complaint(changes: JsonObject, words: str) -> None:
    assert words in (transfer_complaint(ASKED, changed(POSTED, **changes)) or "")


def test_a_reversal_is_of_that_kind() -> None:
    reversal = POSTED | {"kind": "reversal"}
    assert transfer_complaint(ASKED, reversal, "reversal") is None
    assert transfer_complaint(ASKED, POSTED, "reversal") == "kind 'transfer' and status 'posted'"


# Refusals


@pytest.mark.parametrize(
    ("asked_minor", "answer"),
    [
        (5, SHORT),
        (None, SHORT),
        # An overdraft limit that is exceeded.
        (5, changed(SHORT, available=-1, shortfall=6)),
        (5, changed(SHORT, available=4, shortfall=1)),
        (5, REFUSED),
        (None, REFUSED),
    ],
)
def test_a_complete_refusal_is_no_complaint(asked_minor: int | None, answer: JsonObject) -> None:
    assert refusal_complaint(asked_minor, answer) is None


@pytest.mark.parametrize(
    ("asked_minor", "answer", "words"),
    [
        (5, changed(REFUSED, request_id=MISSING), "without request_id or detail"),
        (5, changed(REFUSED, detail=MISSING), "without request_id or detail"),
        (5, changed(REFUSED, detail=""), "without request_id or detail"),
        (5, changed(SHORT, available=MISSING), "without available and shortfall"),
        (5, changed(SHORT, shortfall=MISSING), "without available and shortfall"),
        (5, changed(SHORT, available="3"), "without available and shortfall"),
        (None, changed(SHORT, shortfall="2"), "without available and shortfall"),
        (6, SHORT, "asked for 6, available 3, shortfall 2"),
        (4, SHORT, "asked for 4, available 3, shortfall 2"),
        (5, changed(SHORT, available=5, shortfall=0), "shortfall 0"),
        (None, changed(SHORT, available=5, shortfall=0), "shortfall 0"),
        (5, changed(SHORT, available=6, shortfall=-1), "shortfall -1"),
    ],
)
def test_an_incomplete_refusal_is_a_complaint(
    asked_minor: int | None, answer: JsonObject, words: str
) -> None:
    assert words in (refusal_complaint(asked_minor, answer) or "")


# Wallets

WALLET = {
    "id": "ada",
    "currency": "USD",
    "balance": 10,
    "held": 4,
    "overdraft_limit": 100,
    "available": 106,
    "version": 0,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"balance": -100, "available": -4}, "available -4"),
        ({"balance": -96, "available": 0}, None),
        ({"id": "bob"}, "asked for ada USD, got bob USD"),
        ({"id": MISSING}, "asked for ada USD, got None USD"),
        ({"currency": "EUR"}, "asked for ada USD, got ada EUR"),
        ({"available": 107}, "available is 107, not 106"),
        ({"balance": 11}, "available is 106, not 107"),
        ({"held": 5}, "available is 106, not 105"),
        ({"overdraft_limit": 99}, "available is 106, not 105"),
        ({"version": -1}, "version -1"),
        ({"version": None}, "not a wallet"),
        ({"balance": None}, "not a wallet"),
        *[
            ({field: MISSING}, "not a wallet")
            for field in ("balance", "held", "overdraft_limit", "available", "version")
        ],
    ],
)
def test_a_wallet_agrees_with_the_request_and_adds_up(
    changes: JsonObject, words: str | None
) -> None:
    complaint = wallet_complaint("ada", "USD", changed(WALLET, **changes))
    assert complaint is None if words is None else words in (complaint or "")


# Statements


def row(version: int, amount: int, balance_after: int) -> JsonObject:
    return {"version": version, "amount": amount, "balance_after": balance_after}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], None),
        ([row(9, 5, 7)], None),
        ([row(3, -2, 8), row(2, 5, 10), row(1, 0, 5)], None),
        ([row(3, -2, 8), row(1, 5, 10)], "version 3 follows 1"),
        ([row(2, -2, 8), row(2, 5, 10)], "version 2 follows 2"),
        ([row(2, 5, 10), row(3, -2, 8)], "version 2 follows 3"),
        ([row(3, -2, 9), row(2, 5, 10)], "balance 9 at version 3 is not 10 + -2"),
        ([row(4, 1, 9), row(3, -3, 8), row(2, 5, 10)], "balance 8 at version 3 is not 10 + -3"),
        ([row(2, 1, 9), {"version": 1}], "not a statement"),
        ([{"version": None}, row(2, 5, 10)], "version None follows 2"),
        ([row(2, 5, 10), {"version": None}], "not a statement"),
    ],
)
def test_a_statement_adds_up_from_row_to_row(entries: list[JsonObject], words: str | None) -> None:
    complaint = statement_complaint(entries)
    assert complaint is None if words is None else words in (complaint or "")


# Batches

SECOND = ASKED | {"amount": 6}
POSTED_SECOND = POSTED | {"amount": 6}
REFUSED_SECOND = changed(SHORT, available=3, shortfall=3, status="refused")


@pytest.mark.parametrize(
    ("results", "atomic", "words"),
    [
        ([POSTED, POSTED_SECOND], True, None),
        ([POSTED, POSTED_SECOND], False, None),
        ([POSTED, REFUSED_SECOND], False, None),
        ([POSTED, REFUSED_SECOND], True, "result 1: an atomic batch with a result insufficient"),
        ([POSTED], False, "1 results for 2 transfers"),
        ([], True, "0 results for 2 transfers"),
        ([POSTED_SECOND, POSTED], False, "result 0: amount is 6, asked for 5"),
        ([POSTED, POSTED_SECOND | {"id": 1}], False, "result 1: id is 1"),
        ([POSTED, {}], False, "result 1: code None"),
        ([POSTED, REFUSED | {"code": "overloaded"}], False, "result 1: code 'overloaded'"),
        ([POSTED, REFUSED_SECOND | {"shortfall": 2}], False, "result 1: asked for 6, available 3"),
        ([POSTED, REFUSED], False, "result 1: code"),
        ([POSTED, REFUSED_SECOND | {"detail": ""}], False, "result 1: a refusal without"),
    ],
)
def test_a_batch_has_the_results_of_its_items(
    results: list[JsonObject], atomic: bool, words: str | None
) -> None:
    complaint = batch_complaint([ASKED, SECOND], results, atomic=atomic)
    assert complaint is None if words is None else words in (complaint or "")


# Holds

HOLD = "01900000-0000-7000-8000-0000000000c1"
HELD = {
    "id": HOLD,
    "source_wallet_id": "ada",
    "amount": 10,
    "captured": 4,
    "released": 0,
    "remaining": 6,
    "status": "active",
    "created_at": "2030-01-01T00:00:00.000001Z",
    "expires_at": "2030-01-01T00:00:03.000001Z",
}
RELEASED = HELD | {"status": "released", "released": 6, "remaining": 0}
CAPTURED = POSTED | {"kind": "capture", "hold_id": HOLD}
NEW_HOLD = {"source_wallet_id": "ada", "amount": 10, "expires_in_s": 3}
PART = {"amount": 5, "final": False, "destination_wallet_id": "bob"}


@pytest.mark.parametrize(
    ("what", "asked", "answer", "words"),
    [
        ("", NEW_HOLD, HELD, None),
        ("", NEW_HOLD | {"amount": 11}, HELD, "amount is 10, asked for 11"),
        ("", NEW_HOLD, HELD | {"amount": 10.0}, "amount is 10.0"),
        ("", NEW_HOLD | {"source_wallet_id": "bob"}, HELD, "source_wallet_id is 'ada'"),
        ("", NEW_HOLD | {"expires_in_s": 2}, HELD, "expires after 3000000 microseconds"),
        ("", NEW_HOLD, HELD | {"id": "1"}, "id is '1'"),
        ("", NEW_HOLD, HELD | {"status": "expired"}, "status is 'expired'"),
        ("", NEW_HOLD, changed(HELD, captured=MISSING), "not a hold"),
        ("", NEW_HOLD, HELD | {"expires_at": "tomorrow"}, "not a hold"),
        ("", NEW_HOLD, HELD | {"remaining": 7}, "does not add up"),
        ("", NEW_HOLD, HELD | {"captured": 11, "remaining": -1}, "does not add up"),
        ("", NEW_HOLD, HELD | {"released": 6, "remaining": 0}, "active hold with released 6"),
        ("/adjust", {"amount": 10}, HELD, None),
        ("/adjust", {"amount": 9}, HELD, "amount is 10, asked for 9"),
        ("/adjust", {"expires_at": HELD["expires_at"]}, HELD, None),
        ("/adjust", {"expires_at": "2030-01-02T00:00:00Z"}, HELD, "expires_at is"),
        ("/adjust", {"amount": 10}, HELD | {"id": HOLD[::-1]}, "id is"),
        ("/release", {}, RELEASED, None),
        ("/release", {}, HELD, "status is 'active'"),
        ("/release", {}, HELD | {"status": "released"}, "remaining 6"),
        ("/capture", PART, CAPTURED, None),
        ("/capture", {}, CAPTURED, None),
        ("/capture", PART | {"amount": 6}, CAPTURED, "amount is 5, asked for 6"),
        ("/capture", PART, CAPTURED | {"hold_id": HOLD[::-1]}, "hold_id is"),
        ("/capture", PART, CAPTURED | {"kind": "transfer"}, "kind 'transfer'"),
        ("/capture", PART | {"destination_wallet_id": "eve"}, CAPTURED, "destination_wallet_id is"),
    ],
)
def test_an_answer_about_a_hold_agrees_with_the_request_and_adds_up(
    what: str, asked: JsonObject, answer: JsonObject, words: str | None
) -> None:
    path = f"/holds/{HOLD}{what}" if what else "/holds"
    complaint = hold_complaint(path, asked, answer)
    assert complaint is None if words is None else words in (complaint or "")
