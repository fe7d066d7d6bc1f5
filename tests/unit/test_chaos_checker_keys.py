"""What each key was promised: each broken promise is told by its kinds and no other."""

import pytest

from tests.fault.chaos.records import Try
from tests.unit.chaos_plants import (
    Edit,
    Plant,
    apply_asked,
    ask_again,
    assert_told,
    copy_for_key,
    copy_row,
    drop_row,
    end_open,
    move_by,
    one_refusal_of_many,
    only_open_then,
    refuse,
    reverse,
    reverse_above,
    tell_other_id,
    together,
)

KEYS: list[Plant] = [
    (
        "a told transfer is gone",
        lambda r: drop_row(r, "t5"),
        {"lost", "version-gap", "invented-event"},
    ),
    ("a told outcome is gone", lambda r: r.edit_outcome("k0"), {"lost"}),
    ("a refusal is gone", lambda r: r.edit_outcome("k2"), {"lost-refusal"}),
    ("another id is told", lambda r: tell_other_id(r, "k0", "x"), {"lost", "doubled"}),
    ("another id is stored", lambda r: r.edit_outcome("k8", 201, "x"), {"lost", "doubled"}),
    ("one key has two", lambda r: copy_for_key(r, "t5", "k8"), {"doubled"}),
    ("two keys have one", ask_again, {"doubled"}),
    ("a stored transfer has two keys", lambda r: r.edit_outcome("k99", 201, "t0"), set()),
    ("a twin without key", lambda r: copy_row(r, "t3"), {"doubled", "invented"}),
    ("a transfer without key", lambda r: copy_row(r, "t3", amount=3), {"invented"}),
    (
        "a transfer of a stranger",
        together(
            lambda r: copy_row(r, "t3", amount=3), lambda r: r.edit_outcome("other", 201, "new")
        ),
        {"invented"},
    ),
    ("turned away, yet applied", lambda r: apply_asked(r, "k5"), {"invented"}),
    (
        "never sent, yet applied",
        together(lambda r: r.operation("k5").tries.clear(), lambda r: apply_asked(r, "k5")),
        {"invented"},
    ),
    (
        "refused, yet applied",
        lambda r: refuse(r, "k8", 0, 404, "wallet-not-found"),
        {"refused-but-applied", "invented"},
    ),
    (
        "forbidden, yet applied",
        lambda r: refuse(r, "k8", 0, 403, "forbidden"),
        {"refused-but-applied", "invented"},
    ),
    (
        "refused after a cut, yet applied",
        lambda r: refuse(r, "k1", 1, 422, "insufficient-funds"),
        {"refused-but-applied", "unexplained-refusal"},
    ),
    ("refused, success stored", lambda r: r.edit_outcome("k2", 201, None), {"refused-but-applied"}),
    ("applied, then refused", one_refusal_of_many, {"applied-but-refused", "changed-replay"}),
    (
        "refused, then applied",
        lambda r: refuse(r, "k0", 0, 422, "wallet-frozen"),
        {"applied-but-refused", "changed-replay"},
    ),
    ("applied, refusal stored", lambda r: r.edit_outcome("k0", 422, None), {"applied-but-refused"}),
    (
        "other bytes",
        lambda r: r.edit_try("k0", 1, body=r.operation("k0").tries[1].body + b" "),
        {"changed-replay"},
    ),
    ("other bytes of a refusal", lambda r: r.edit_try("k2", 1, body=b"{}"), {"changed-replay"}),
    (
        "another status",
        lambda r: r.edit_try("k0", 1, status=200),
        {"changed-replay", "wrong-answer"},
    ),
    (
        "another refusal",
        lambda r: r.edit_try("k2", 1, code="wallet-frozen", body=b"{}"),
        {"changed-replay"},
    ),
    (
        "a replay without its mark",
        lambda r: r.edit_try("k0", 1, replayed=False),
        {"unmarked-replay"},
    ),
    ("no answer at the end", lambda r: end_open(r, "k0", 0), {"unsettled"}),
    (
        "in progress at the end",
        lambda r: end_open(r, "k0", 409, "request-in-progress"),
        {"unsettled"},
    ),
    ("an error at the end", lambda r: end_open(r, "k0", 500, "internal-error"), {"unsettled"}),
    ("overloaded at the end", lambda r: end_open(r, "k0", 503, "overloaded"), {"unsettled"}),
    (
        "turned away at the end, still open",
        lambda r: only_open_then(r, 429, "rate-limited"),
        {"unsettled"},
    ),
    (
        "forbidden at the end, still open",
        lambda r: only_open_then(r, 401, "unauthenticated"),
        {"unsettled"},
    ),
    (
        "turned away at the end, known before",
        lambda r: end_open(r, "k0", 429, "rate-limited"),
        set(),
    ),
    (
        "forbidden, never applied",
        lambda r: r.edit_try("k5", 1, status=403, code="forbidden"),
        set(),
    ),
    (
        "a key of another request, told twice",
        lambda r: r.operation("k5").tries.extend(
            Try(900 + n, 901 + n, 422, "idempotency-key-reused", b"%d" % n) for n in range(2)
        ),
        set(),
    ),
]


@pytest.mark.parametrize(("_name", "edit", "expected"), KEYS, ids=[name for name, _, _ in KEYS])
def test_a_key_has_one_effect_and_one_answer(_name: str, edit: Edit, expected: set[str]) -> None:
    assert_told(edit, expected)


ANSWERS: list[Plant] = [
    *(
        (
            f"another {name} is told",
            lambda r, name=name, value=value: r.edit_body("k8", 0, **{name: value}),
            {"wrong-answer"},
        )
        for name, value in (
            ("source_wallet_id", "bob"),
            ("destination_wallet_id", "bob"),
            ("amount", 8),
            ("kind", "reversal"),
            ("source_version", 1),
            ("source_balance_after", 1),
            ("reverses_transfer_id", "t0"),
        )
    ),
    ("a reversal as a transfer", lambda r: r.edit_body("k3", 0, kind="transfer"), {"wrong-answer"}),
    (
        "a reversal of another",
        lambda r: r.edit_body("k3", 0, reverses_transfer_id="t1"),
        {"wrong-answer"},
    ),
    ("a success without JSON", lambda r: r.edit_try("k8", 0, body=b"<html>"), {"wrong-answer"}),
    ("a success that is a list", lambda r: r.edit_try("k8", 0, body=b"[]"), {"wrong-answer"}),
    ("a success without id", lambda r: r.edit_body("k8", 0, id=None), {"wrong-answer"}),
    ("a success with 200", lambda r: r.edit_try("k8", 0, status=200), {"wrong-answer"}),
    ("another refusal is stored", lambda r: r.edit_outcome("k2", 404, None), {"wrong-answer"}),
    ("another amount is in the books", lambda r: move_by(r, 1), {"wrong-answer"}),
    (
        "another amount was asked for",
        lambda r: setattr(r.operation("k1"), "amount", 51),
        {"wrong-answer"},
    ),
    (
        "another original is in the books",
        lambda r: r.edit_row("t2", reverses="t9"),
        {"wrong-answer", "unexplained-refusal"},
    ),
    (
        "a transfer is a reversal in the books",
        lambda r: r.edit_row("t5", reverses="t9"),
        {"wrong-answer"},
    ),
    ("a reversal above what was left", reverse_above, {"wrong-answer"}),
    ("a reversal of a reversal", lambda r: reverse(r, "t2", "ada", "bob"), {"wrong-answer"}),
    ("a reversal to somebody else", lambda r: reverse(r, "t0", "bob", "cy"), {"wrong-answer"}),
    ("a reversal by somebody else", lambda r: reverse(r, "t0", "cy", "ada"), {"wrong-answer"}),
    ("a reversal of what is left", lambda r: reverse(r, "t0", "bob", "ada"), set()),
    ("a reversal of something older", lambda r: reverse(r, "t-1", "bob", "ada"), set()),
]


@pytest.mark.parametrize(
    ("_name", "edit", "expected"), ANSWERS, ids=[name for name, _, _ in ANSWERS]
)
def test_an_answer_is_what_was_asked_for_as_the_ledger_has_it(
    _name: str, edit: Edit, expected: set[str]
) -> None:
    assert_told(edit, expected)
