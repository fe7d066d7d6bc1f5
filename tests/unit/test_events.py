"""Events in the outbox, and the CloudEvents made of them."""

from typing import Any

import orjson
import pytest

from tests.unit.samples import EARLIER, NOW, ORIGIN, hold, posted, wallet
from transferd.commit.events import (
    LedgerEvent,
    cloud_event,
    completed,
    event_of_change,
    event_of_transfer,
    events_of,
)
from transferd.domain.book import (
    BatchPosted,
    Captured,
    HoldSet,
    Outcome,
    Posted,
    UserCreated,
    WalletCreated,
    WalletSet,
)
from transferd.domain.errors import Reason, Refused
from transferd.domain.ledger import MAIN
from transferd.domain.transfer import PostedTransfer, TransferKind
from transferd.domain.user import User
from transferd.domain.wallet import ChangeKind, WalletChange, WalletStatus
from transferd.domain.webhook import EVENT_TYPES

LUNCH = posted(
    metadata='{"table":7,"tip":0.1}', source_version=4, destination_version=9, created_at=NOW
)
# Each outcome with the types of its events.
OUTCOMES: list[tuple[Outcome, list[str]]] = [
    (Posted(LUNCH), ["transfer.posted"]),
    (
        Posted(posted(kind=TransferKind.REVERSAL, reverses_transfer_id="breakfast")),
        ["transfer.reversed"],
    ),
    (UserCreated(User("ada's owner", "Ada", "{}", NOW)), ["user.created"]),
    (Refused(Reason.INSUFFICIENT_FUNDS, "not enough"), []),
]


def change(kind: ChangeKind, **changes: Any) -> WalletChange:
    """A change of ada's wallet to version 5."""
    return WalletChange(
        wallet_id="ada",
        version=5,
        kind=kind,
        status=WalletStatus.FROZEN,
        balance_minor=250,
        overdraft_limit_minor=30,
        created_at=NOW,
        held_minor=0,
    )._replace(**changes)


def set_to(kind: ChangeKind) -> WalletSet:
    return WalletSet(wallet("ada", 250, version=5), change(kind))


def hold_set(kind: ChangeKind) -> HoldSet:
    """A change of a hold of 100, of which 30 is captured, by ada's wallet at version 5."""
    changed = hold(captured_minor=30)
    return HoldSet(changed, wallet("ada"), change(kind, held_minor=70, hold=changed))


CAPTURED = Captured(
    LUNCH._replace(kind=TransferKind.CAPTURE, hold_id="h"),
    hold(captured_minor=30),
    wallet("ada"),
    change(ChangeKind.HOLD_CAPTURE, held_minor=70, hold=hold(captured_minor=30)),
)

OUTCOMES += [
    (WalletCreated(wallet("ada"), change(ChangeKind.CREATED, version=0), None), ["wallet.created"]),
    (
        WalletCreated(wallet("ada"), change(ChangeKind.CREATED, version=0), LUNCH),
        ["wallet.created", "transfer.posted"],
    ),
    (set_to(ChangeKind.FREEZE), ["wallet.frozen"]),
    (set_to(ChangeKind.UNFREEZE), ["wallet.unfrozen"]),
    (set_to(ChangeKind.CLOSE), ["wallet.closed"]),
    (set_to(ChangeKind.UPDATE), ["wallet.updated"]),
    (WalletSet(wallet("ada"), None), []),
    (hold_set(ChangeKind.HOLD_CREATE), ["hold.created"]),
    (hold_set(ChangeKind.HOLD_ADJUST), ["hold.adjusted"]),
    (hold_set(ChangeKind.HOLD_RELEASE), ["hold.released"]),
    (hold_set(ChangeKind.HOLD_EXPIRE), ["hold.expired"]),
    (HoldSet(hold(), wallet("ada"), None), []),
    (CAPTURED, ["hold.captured", "transfer.posted"]),
    (
        BatchPosted((Posted(LUNCH), CAPTURED, Refused(Reason.HOLD_NOT_FOUND, "none"))),
        ["transfer.posted", "hold.captured", "transfer.posted"],
    ),
]


async def outbox(outcome: Outcome) -> list[Any]:
    """The events of an outcome, as a relay reads and completes them."""
    transfers = {}
    match outcome:
        case Posted(transfer) | WalletCreated(initial=PostedTransfer() as transfer):
            transfers[transfer.id] = transfer
        case Captured() | BatchPosted():
            transfers[LUNCH.id] = LUNCH
    events = [orjson.loads(event) for event in events_of(ORIGIN, outcome)]
    return [
        orjson.loads(orjson.dumps(completed(event, transfers), option=orjson.OPT_UTC_Z))
        for event in events
    ]


async def sent(outcome: Outcome) -> list[Any]:
    """The events of an outcome, as a receiver gets them."""
    return [orjson.loads(cloud_event(event, MAIN.name)) for event in await outbox(outcome)]


# In the outbox


@pytest.mark.parametrize(
    ("outcome", "types"), OUTCOMES, ids=[" ".join(types) or "nothing" for _, types in OUTCOMES]
)
async def test_an_outcome_has_its_events_in_order(outcome: Outcome, types: list[str]) -> None:
    assert [event["type"] for event in await outbox(outcome)] == types


def test_every_type_of_event_is_produced_by_an_outcome() -> None:
    assert {type for _, types in OUTCOMES for type in types} == set(EVENT_TYPES)


async def test_an_event_of_a_transfer_names_both_wallets_and_the_request() -> None:
    [event] = await outbox(Posted(LUNCH))
    assert event == {
        "id": "lunch",
        "type": "transfer.posted",
        "time": "2030-01-02T03:04:05.678901Z",
        "traceparent": ORIGIN.traceparent,
        "request_id": "request-1",
        "data": {
            "id": "lunch",
            "kind": "transfer",
            "source_wallet_id": "ada",
            "destination_wallet_id": "bob",
            "amount": 100,
            "currency": "USD",
            "reference": "lunch",
            "metadata": {"table": 7, "tip": 0.1},
            "source_version": 4,
            "source_balance_after": 900,
            "destination_version": 9,
            "destination_balance_after": 100,
            "reverses_transfer_id": None,
            "hold_id": None,
        },
    }


async def test_an_event_of_a_reversal_names_the_original_transfer() -> None:
    reversal = posted(kind=TransferKind.REVERSAL, reverses_transfer_id="breakfast")
    [event] = await outbox(Posted(reversal))
    assert event["data"]["kind"] == "reversal"
    assert event["data"]["reverses_transfer_id"] == "breakfast"


async def test_a_change_of_a_wallet_is_recognized_by_its_version() -> None:
    [event] = await outbox(set_to(ChangeKind.FREEZE))
    assert (event["id"], event["type"]) == ("ada:5", "wallet.frozen")
    assert event["data"] == {
        "id": "ada",
        "user_id": "ada's owner",
        "currency": "USD",
        "balance": 250,
        "overdraft_limit": 30,
        "status": "frozen",
        "version": 5,
    }
    [published] = await sent(set_to(ChangeKind.FREEZE))
    assert published["subject"] == "ada"


async def test_an_event_of_a_hold_has_its_state_and_what_the_wallet_holds() -> None:
    [event] = await outbox(hold_set(ChangeKind.HOLD_ADJUST))
    assert (event["id"], event["type"]) == ("ada:5", "hold.adjusted")
    assert event["data"] == {
        "id": "h",
        "source_wallet_id": "ada",
        "destination_wallet_id": "bob",
        "currency": "USD",
        "amount": 100,
        "captured": 30,
        "released": 0,
        "remaining": 70,
        "status": "active",
        "expires_at": "2030-01-03T03:04:05.678901Z",
        "reference": "room 12",
        "metadata": {},
        "version": 5,
        "held_after": 70,
    }
    [published] = await sent(hold_set(ChangeKind.HOLD_ADJUST))
    assert published["subject"] == "h"


async def test_an_event_of_a_new_user_has_no_metadata() -> None:
    [event] = await outbox(UserCreated(User("ada's owner", "Ada", '{"secret":1}', NOW)))
    assert event["data"] == {"id": "ada's owner", "name": "Ada"}


# As CloudEvents 1.0


async def test_a_cloud_event_has_the_data_of_the_outbox() -> None:
    [kept] = await outbox(Posted(LUNCH))
    [event] = await sent(Posted(LUNCH))
    assert event == {
        "specversion": "1.0",
        "id": "lunch",
        "source": "/transferd",
        "type": "transfer.posted",
        "subject": "lunch",
        "time": "2030-01-02T03:04:05.678901Z",
        "datacontenttype": "application/json",
        "ledger": "main",
        "traceparent": ORIGIN.traceparent,
        "requestid": "request-1",
        "data": kept["data"],
    }


# Rebuilt from the stored rows


def rebuilt(event: LedgerEvent) -> Any:
    return orjson.loads(cloud_event(event._asdict(), MAIN.name))


@pytest.mark.parametrize(
    ("outcome", "read_again"),
    [
        (Posted(LUNCH), event_of_transfer(LUNCH)),
        (
            set_to(ChangeKind.CLOSE),
            event_of_change(change(ChangeKind.CLOSE), "ada's owner", "USD"),
        ),
    ],
    ids=["transfer", "change"],
)
async def test_an_event_that_is_rebuilt_is_the_one_that_was_sent(
    outcome: Outcome, read_again: LedgerEvent
) -> None:
    [event] = await sent(outcome)
    again = rebuilt(read_again)
    assert event["id"] == again["id"]
    # The request id is not stored with the transfer.
    assert event == again | {"traceparent": ORIGIN.traceparent, "requestid": "request-1"}


def test_the_creation_of_a_wallet_is_its_version_0() -> None:
    created = change(ChangeKind.CREATED, version=0, created_at=EARLIER)
    assert rebuilt(event_of_change(created, None, "USD"))["id"] == "ada:0"
