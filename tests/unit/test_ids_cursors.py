"""Ids contain a time and a ledger; cursors lead to the next page and cannot be made up."""

import base64
import time
from collections.abc import Callable
from functools import partial
from uuid import RFC_4122, UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.money import BALANCE_MINOR_MAX
from transferd.ledger.ids import new_id
from transferd.web.cursors import decode, decode_id, decode_version, encode, scope_of
from transferd.web.fields import is_id
from transferd.web.problems import Problem
from transferd.web.schemas import ListQuery, WalletsQuery

SOME_ID = "01890000-0000-7000-8000-000000000000"
LISTS = ("users", "wallets", "transfers", "statement")

# Ids


def test_an_id_is_a_uuid_of_version_7_in_canonical_form() -> None:
    for _ in range(1_000):
        id = new_id(MAIN)
        uuid = UUID(id)
        assert str(uuid) == id
        assert (uuid.version, uuid.variant) == (7, RFC_4122)
        assert is_id(id)


def test_an_id_begins_with_its_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    id = UUID(new_id(MAIN))
    after = time.time_ns() // 1_000_000
    assert before <= id.int >> 80 <= after


@pytest.mark.parametrize("number", [0, 1, 0xABC, 0xFFF])
def test_rand_a_is_the_number_of_the_ledger(number: int) -> None:
    uuid = UUID(new_id(MAIN._replace(number=number)))
    assert (uuid.int >> 64) & 0xFFF == number
    assert (uuid.version, uuid.variant) == (7, RFC_4122)


def test_ids_are_ordered_by_time_as_text_and_as_numbers() -> None:
    made: list[str] = []
    while len({id[:13] for id in made}) < 5:
        made.append(new_id(MAIN))
    # Ids of one millisecond have no order, so one of each millisecond is compared.
    one_each = list({id[:13]: id for id in made}.values())
    assert one_each == sorted(one_each) == sorted(one_each, key=lambda id: UUID(id).int)


def test_ids_of_one_millisecond_are_unique_by_62_random_bits() -> None:
    made = [new_id(MAIN) for _ in range(20_000)]
    assert len(set(made)) == len(made)
    tails = [UUID(id).int & (2**62 - 1) for id in made]
    seen_set = seen_clear = 0
    for tail in tails:
        seen_set |= tail
        seen_clear |= ~tail & (2**62 - 1)
    assert seen_set == seen_clear == 2**62 - 1, "every bit is sometimes 1 and sometimes 0"


# Cursors

VERSIONS = st.integers(0, BALANCE_MINOR_MAX)
UUIDS = st.uuids().map(str)


def refused(read: Callable[[], object]) -> bool:
    """Whether it is answered with `cursor-invalid`; any other error is a fault."""
    try:
        read()
    except Problem as problem:
        return problem.code == "cursor-invalid"
    return False


@given(st.sampled_from(LISTS), VERSIONS, UUIDS)
def test_a_cursor_leads_to_where_the_page_ended(name: str, version: int, id: str) -> None:
    assert decode_version(name, encode(name, version)) == version
    assert decode_id(name, encode(name, id)) == id
    assert encode(name, version).replace("-", "").replace("_", "").isalnum(), "safe in a URL"


@given(st.permutations(LISTS), VERSIONS, UUIDS)
def test_a_cursor_of_another_list_is_refused(names: list[str], version: int, id: str) -> None:
    one, other, *_ = names
    assert refused(lambda: decode_version(other, encode(one, version)))
    assert refused(lambda: decode_id(other, encode(one, id)))


@given(
    st.one_of(st.text(), st.text("AZaz09-_=+/"), st.binary().map(lambda raw: raw.decode("latin-1")))
)
def test_a_cursor_that_was_not_encoded_is_refused(text: str) -> None:
    for name in LISTS:
        if not refused(partial(decode, name, text)):
            assert encode(name, decode(name, text)) == text
        assert refused(partial(decode_version, name, text))
        assert refused(partial(decode_id, name, text))


@given(VERSIONS, st.integers(0, 100), st.sampled_from("AB9-_=+/ \n\0é"))
def test_a_cursor_with_one_other_character_never_passes_for_itself(
    version: int, place: int, character: str
) -> None:
    cursor = encode("transfers", version)
    place %= len(cursor) + 1
    for changed in (
        cursor[:place] + character + cursor[place:],
        cursor[:place] + character + cursor[place + 1 :],
    ):
        assume(changed != cursor)
        if not refused(partial(decode_version, "transfers", changed)):
            assert encode("transfers", decode_version("transfers", changed) or 0) == changed


@pytest.mark.parametrize(
    "position",
    [
        "",
        "-1",
        " 1",
        "1_0",
        "007",
        str(BALANCE_MINOR_MAX + 1),
        "9" * 20,
        # Python refuses to read more than 4,300 digits, which is no reason for a 500.
        "9" * 5_000,
        SOME_ID,
        "1:2",
    ],
    ids=lambda position: position[:20] or "nothing",
)
def test_a_version_is_a_plain_number(position: str) -> None:
    assert refused(lambda: decode_version("transfers", encode("transfers", position)))


@pytest.mark.parametrize(
    "position",
    ["", "1", "ada", f"{SOME_ID}x", f"{SOME_ID}\n", f"{{{SOME_ID}}}", SOME_ID.replace("-", "")],
)
def test_an_id_has_the_shape_of_one(position: str) -> None:
    assert refused(lambda: decode_id("wallets", encode("wallets", position)))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        encode("transfers", 12) + "=",
        encode("transfers", 12) + "==",
        encode("transfers", 12) + "\n",
        base64.b64encode(b"transfers:12").decode() + "====",
        base64.urlsafe_b64encode(b"transfers").decode(),
        base64.urlsafe_b64encode("transfers:١٢".encode()).decode(),
        # The same bytes with other unused bits in the last character.
        "dHJhbnNmZXJzOjE5OR",
    ],
    ids=repr,
)
def test_another_spelling_of_a_cursor_is_refused(cursor: str) -> None:
    assert refused(lambda: decode_version("transfers", cursor))


def scopes_in(ledger: Ledger) -> list[str]:
    return [
        scope_of(ledger, "users", ListQuery()),
        scope_of(ledger, "deliveries", ListQuery.model_validate({"limit": "5"}), SOME_ID),
        scope_of(ledger, "wallets", WalletsQuery.model_validate({"currency": "EUR"})),
    ]


def test_cursors_of_main_are_those_of_the_version_without_ledgers() -> None:
    # Computed by the code before cursors had a ledger (commit 41a083f).
    before = ["users.82835075e398", "deliveries.0f98335bc3d2", "wallets.3dc456571d58"]
    assert scopes_in(MAIN) == before


def test_no_two_ledgers_have_a_cursor_in_common() -> None:
    numbers = (0, 1, 2, 10, 4095)
    scopes = {scope for each in numbers for scope in scopes_in(MAIN._replace(number=each))}
    assert len(scopes) == 3 * len(numbers)
