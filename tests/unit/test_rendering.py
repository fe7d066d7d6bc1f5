"""Results as bytes: stable for stored results, in the order of the contract."""

from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.samples import EARLIER, NOW, ORIGIN, book, envelope, posted, transfer, wallet
from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.domain.book import Posted, UserCreated, WalletCreated
from transferd.domain.command import Command
from transferd.domain.decide import decide
from transferd.domain.errors import Reason, Refused
from transferd.domain.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX, BALANCE_MINOR_MIN
from transferd.domain.times import rfc3339
from transferd.domain.transfer import PostedTransfer, TransferKind
from transferd.domain.user import CreateUser, User
from transferd.domain.wallet import ChangeKind, CreateWallet, SetStatus, WalletStatus
from transferd.ledger.store.database import Row
from transferd.ledger.store.numbers import TRANSFER_KINDS
from transferd.ledger.store.outcomes import RENDER_SINGLE, StoredAnswer
from transferd.ledger.store.transfers import transfer_of
from transferd.web.fields import metadata_text
from transferd.web.rendering import Rendering
from transferd.web.schemas import NewTransfer

ID = "019b7f00-0000-7000-8000-000000000000"
RENDERING = Rendering()

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
METADATA = st.dictionaries(TEXTS, VALUES, max_size=8)


def requested(metadata: dict[str, Any], reference: str | None) -> NewTransfer:
    """The request as a client sends it and the edge validates it."""
    body = {
        "source_wallet_id": ID,
        "destination_wallet_id": ID,
        "amount": 100,
        "currency": "USD",
        "reference": reference,
        "metadata": metadata,
    }
    return NewTransfer.model_validate_json(orjson.dumps(body))


def stored(transfer: PostedTransfer) -> PostedTransfer:
    """The transfer as it comes back from its row: without metadata the column is NULL."""
    row = {
        "id": transfer.id,
        "kind": TRANSFER_KINDS.index(transfer.kind),
        "source_wallet_id": transfer.source_wallet_id,
        "destination_wallet_id": transfer.destination_wallet_id,
        "amount": transfer.amount_minor,
        "currency": transfer.currency,
        "reference": transfer.reference,
        "metadata": None if transfer.metadata == "{}" else transfer.metadata,
        "source_version": transfer.source_version,
        "source_balance_after": transfer.source_balance_after_minor,
        "destination_version": transfer.destination_version,
        "destination_balance_after": transfer.destination_balance_after_minor,
        "reverses_transfer_id": transfer.reverses_transfer_id,
        "created_at": transfer.created_at,
        "hold_id": transfer.hold_id,
    }
    return transfer_of(cast(Row, row))


@given(METADATA, st.one_of(st.none(), TEXTS))
def test_a_stored_transfer_is_the_same_bytes_for_ever(
    metadata: dict[str, Any], reference: str | None
) -> None:
    request = requested(metadata, reference)
    command = transfer(reference=request.reference, metadata=metadata_text(request.metadata))
    outcome = decide(command, book(wallet("ada", 1_000), wallet("bob")))
    assert isinstance(outcome, Posted)
    first = RENDERING.transfer(outcome.transfer)
    assert RENDERING.transfer(stored(outcome.transfer)) == first
    shown = orjson.loads(first)
    assert (shown["metadata"], shown["reference"]) == (metadata, reference)
    assert list(shown["metadata"]) == list(metadata), "in the client's order"


async def test_a_posted_transfer_is_answered_as_it_will_be_shown() -> None:
    answer = RENDERING.answer(envelope(), Posted(posted()))
    stored = StoredAnswer(RENDER_SINGLE, posted().id, None)
    assert answer == Answer(201, RENDERING.transfer(posted()), stored)


def test_a_transfer_has_the_fields_of_the_contract_in_their_order() -> None:
    body = RENDERING.transfer(posted(100, id=ID, metadata='{"n":1}'))
    assert body == (
        b'{"id":"019b7f00-0000-7000-8000-000000000000","source_wallet_id":"ada",'
        b'"destination_wallet_id":"bob","amount":100,"currency":"USD","kind":"transfer",'
        b'"status":"posted","reference":"lunch","metadata":{"n":1},"source_version":4,'
        b'"source_balance_after":900,"created_at":"2030-01-01T00:00:00.000000Z"}'
    )


def test_metadata_is_shown_exactly_as_stored() -> None:
    spelled_otherwise = '{ "n": 1.50, "\\u00e9": 1e2 }'
    body = RENDERING.transfer(stored(posted(metadata=spelled_otherwise)))
    assert b'"metadata":' + spelled_otherwise.encode() + b"," in body


def test_a_reversal_names_its_original_at_the_end() -> None:
    back = posted(kind=TransferKind.REVERSAL, reverses_transfer_id=ID)
    assert RENDERING.transfer(stored(back)) == RENDERING.transfer(back)
    assert RENDERING.transfer(back).endswith(b',"reverses_transfer_id":"%s"}' % ID.encode())


@pytest.mark.parametrize("balance_minor", [BALANCE_MINOR_MIN, -1, 0, BALANCE_MINOR_MAX])
def test_balances_are_exact_at_both_ends(balance_minor: int) -> None:
    body = RENDERING.wallet(wallet("ada", balance_minor, overdraft_limit_minor=AMOUNT_MINOR_MAX))
    shown = orjson.loads(body)
    assert shown["balance"] == balance_minor
    assert shown["available"] == balance_minor + AMOUNT_MINOR_MAX


def test_a_funding_wallet_has_no_limit_and_so_nothing_available() -> None:
    shown = orjson.loads(RENDERING.wallet(wallet("fund", -70, funding=True, user_id=None)))
    assert (shown["balance"], shown["available"], shown["user_id"]) == (-70, None, None)


def asking(command: Command) -> Envelope:
    """An envelope with this command in it."""
    sent = envelope()
    sent.command = command
    return sent


NEW = CreateWallet("new", "u", "USD", 0, "{}", 70, "fund", "t")


def stored_whole(status: int, body: bytes) -> Answer:
    return Answer(status, body, StoredAnswer(RENDER_SINGLE, None, body))


async def test_a_new_wallet_is_shown_with_its_initial_balance() -> None:
    state = book(wallet("fund", funding=True), users={"u": EARLIER})
    outcome = decide(NEW, state)
    assert isinstance(outcome, WalletCreated)
    answer = RENDERING.answer(asking(NEW), outcome)
    state.apply(outcome)
    assert answer == stored_whole(201, RENDERING.wallet(state.wallets["new"]))
    shown = orjson.loads(answer.body)
    assert (shown["balance"], shown["version"]) == (70, 1)
    assert shown["updated_at"] == shown["created_at"] == rfc3339(NOW)


async def test_an_empty_new_wallet_is_shown_at_version_zero() -> None:
    command = NEW._replace(initial_minor=0)
    answer = RENDERING.answer(asking(command), decide(command, book(users={"u": EARLIER})))
    shown = orjson.loads(answer.body)
    assert (answer.status, shown["balance"], shown["version"]) == (201, 0, 0)


@pytest.mark.parametrize(
    ("command", "status"),
    [(NEW, 201), (SetStatus("new", ChangeKind.FREEZE), 200)],
    ids=["new", "set"],
)
async def test_a_wallet_that_was_there_is_shown_as_its_command_asks(
    command: Command, status: int
) -> None:
    frozen = wallet("new", 70, version=1, status=WalletStatus.FROZEN)
    answer = RENDERING.answer(asking(command), decide(command, book(frozen)))
    assert answer == stored_whole(status, RENDERING.wallet(frozen))


async def test_a_user_is_shown_as_stored() -> None:
    user = User("u", None, '{"n":1}', NOW)
    answer = RENDERING.answer(asking(CreateUser("u", None, '{"n":1}')), UserCreated(user))
    assert answer == stored_whole(201, RENDERING.user(user))
    assert answer.body == (
        b'{"id":"u","name":null,"metadata":{"n":1},"created_at":"2030-01-02T03:04:05.678901Z"}'
    )


async def test_a_refusal_is_a_problem_with_its_facts() -> None:
    outcome = decide(transfer(100), book(wallet("ada", 40), wallet("bob")))
    answer = RENDERING.answer(envelope(), outcome)
    assert (answer.status, answer.kept, answer.replayed) == (422, True, False)
    assert orjson.loads(answer.body) == {
        "type": "/problems/insufficient-funds",
        "title": "Insufficient funds",
        "status": 422,
        "detail": "40 USD is available, 60 more is needed.",
        "instance": "/transfers",
        "code": "insufficient-funds",
        "request_id": ORIGIN.request_id,
        "available": 40,
        "shortfall": 60,
        "currency": "USD",
    }


@pytest.mark.parametrize("reason", Reason)
async def test_every_refusal_is_stored_but_a_reused_key_and_a_changed_version(
    reason: Reason,
) -> None:
    answer = RENDERING.answer(envelope(), Refused(reason, "No."))
    not_stored = {Reason.IDEMPOTENCY_KEY_REUSED, Reason.VERSION_CHANGED}
    assert answer.kept == (reason not in not_stored)
    shown = orjson.loads(answer.body)
    assert (shown["code"], shown["status"], shown["detail"]) == (reason, answer.status, "No.")
