"""Several ledgers in a load test: their keys, the users of each, and ids of other ledgers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loadtest.api import ServiceError
from loadtest.api_keys import LedgerKey, keys_of
from loadtest.audit import Audit, total
from loadtest.options import Options
from loadtest.proof.history import History
from loadtest.proof.ids import foreign_ids
from loadtest.proof.violations import FOREIGN_ID, Violation
from loadtest.session import Session, session_for
from loadtest.world import World


def wallet(ledger: int, number: int) -> str:
    return f"019b7f00-0000-7{ledger:03x}-8000-{number:012x}"


def options(**values: object) -> Options:
    """Only the options that choose the keys."""
    defaults = {"ledgers": 1, "keys_file": "", "api_key": ""}
    return cast(Options, SimpleNamespace(**defaults | values))


def session(ledger: int, *more: str, name: str = "shop") -> Session:
    """A session of a ledger with two wallets."""
    world = World("run", "USD", [wallet(ledger, 1), wallet(ledger, 2), *more], [], [], [], [])
    return Session(options(), world, History({}), lambda _: None, "0", ledger=name)


# Keys


def test_one_ledger_uses_the_key_of_the_command_line() -> None:
    assert keys_of(options(api_key="td_a_b")) == [LedgerKey("", "td_a_b")]


def test_each_ledger_has_its_line_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("main td_1_x\n\nshop td_2_y\nmill td_3_z\n")
    found = keys_of(options(ledgers=2, keys_file=str(file)))
    assert found == [LedgerKey("main", "td_1_x"), LedgerKey("shop", "td_2_y")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("main td_1_x\n", "has 1 keys"),
        ("main td_1_x\nmain td_2_y\n", "different names"),
        ("td_1_x\ntd_2_y\n", "NAME TOKEN"),
        (None, "No such file"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(
    tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ServiceError) as caught:
        keys_of(options(ledgers=2, keys_file=str(file)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "td_" not in str(caught.value)


def test_several_ledgers_need_a_file() -> None:
    with pytest.raises(ServiceError, match="transferd keys create --ledger NAME"):
        keys_of(options(ledgers=3, api_key="td_a_b"))


# Users


def test_users_of_each_persona_are_spread_over_the_ledgers() -> None:
    sessions = [session(number) for number in range(4)]
    for persona, count in {"Shopper": 9, "Reader": 3, "Payroll": 1}.items():
        for _ in range(count):
            session_for(persona, sessions)
    assert sorted(each.users["Shopper"] for each in sessions) == [2, 2, 2, 3]
    assert sorted(each.users["Reader"] for each in sessions) == [0, 1, 1, 1]
    # The persona with one user is in a ledger that had fewer users than others.
    assert sorted(each.users.total() for each in sessions) == [3, 3, 3, 4]


def test_all_ledgers_get_the_same_keys() -> None:
    first, second = session(0), session(1)
    assert [first.new_key() for _ in range(3)] == [second.new_key() for _ in range(3)]


# Ids


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (wallet(1, 5), []),
        (wallet(2, 5), [wallet(2, 5)]),
        (wallet(0xFFF, 5) + wallet(1, 5), [wallet(0xFFF, 5)]),
        (f"{wallet(2, 5)}:7 {wallet(2, 5)}", [wallet(2, 5)]),
        # No ids of the service: UUIDs of version 4, and other digits.
        ("019b7f00-0000-4002-8000-000000000005", []),
        ("00-019b7f0000007002800000000000000005-0000000000000001-01", []),
        ("019b7f00-0000-7002-c000-000000000005", []),
    ],
)
def test_ids_of_other_ledgers_are_found_in_any_text(text: str, found: list[str]) -> None:
    assert foreign_ids(text.encode(), 1) == found


def test_an_answer_with_an_id_of_another_ledger_is_a_violation() -> None:
    seen = session(1)
    seen.check_ids("the answer to GET /wallets", wallet(1, 1).encode())
    assert seen.history.violations.total == 0
    seen.check_ids("the answer to GET /wallets", wallet(0, 1).encode())
    text = f"ledger shop: the answer to GET /wallets names {wallet(0, 1)}, which is of another"
    assert seen.history.violations.reported == [Violation(FOREIGN_ID, f"{text} ledger")]


def test_wallets_from_before_ledgers_have_no_number_to_compare_with() -> None:
    seen = session(1, wallet(0x123, 9))
    assert seen.world.ledger_number is None
    seen.check_ids("an answer", wallet(0, 1).encode())
    assert seen.history.violations.total == 0


# The audit of all


def test_the_counts_of_all_ledgers_are_added() -> None:
    audits = [
        Audit(wallets=2, acknowledged=5, seconds=0.1),
        Audit(wallets=3, acknowledged=7, seconds=0.2, complete=False),
    ]
    whole: Any = total(audits)
    assert (whole.wallets, whole.acknowledged, whole.seconds) == (5, 12, 0.3)
    assert not whole.complete
    assert total([]) == Audit()
