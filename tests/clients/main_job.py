"""The main job of transferd, done through the client that openapi-python-client generates.

Its test puts this program beside the generated package, type-checks both, and runs it: the first
argument is the address of a service.
"""

import sys
from typing import TypeVar
from uuid import UUID, uuid4

from transferd_client import Client
from transferd_client.api.transfers import (
    create_batch,
    create_transfer,
    list_transfers,
    reverse_transfer,
)
from transferd_client.api.users import create_user
from transferd_client.api.wallets import create_wallet, read_wallet, update_wallet
from transferd_client.api.webhooks import create_webhook
from transferd_client.models import (
    BatchCapture,
    BatchMode,
    BatchRefused,
    BatchResult,
    DryRun,
    EventFilter,
    InsufficientFunds,
    InsufficientFundsRefusal,
    Metadata,
    NewBatch,
    NewReversal,
    NewTransfer,
    NewUser,
    NewWallet,
    NewWebhook,
    Problem,
    ProblemCode,
    ReversalExceedsTransfer,
    Transfer,
    TransferKind,
    TransferList,
    User,
    Wallet,
    WalletPatch,
    WalletStatus,
    WebhookWithSecret,
)

Expected = TypeVar("Expected")


def the(kind: type[Expected], answer: object) -> Expected:
    """The answer, which has to be of this kind."""
    assert isinstance(answer, kind), answer
    return answer


def metadata(**members: str | float | bool | None) -> Metadata:
    """Metadata of these members."""
    made = Metadata()
    made.additional_properties.update(members)
    return made


def new_wallet(client: Client, user: User, balance: int) -> Wallet:
    """A wallet in USD with a balance and an overdraft limit of 500."""
    body = NewWallet(user_id=user.id, currency="USD", initial_balance=balance, overdraft_limit=500)
    return the(Wallet, create_wallet.sync(client=client, body=body, idempotency_key=str(uuid4())))


def transfer(source: Wallet, destination: Wallet, amount: int) -> NewTransfer:
    """The body of a transfer."""
    return NewTransfer(
        source_wallet_id=source.id,
        destination_wallet_id=destination.id,
        amount=amount,
        currency="USD",
        reference="rent",
        metadata=metadata(invoice="2026-11"),
    )


def pay(client: Client, ada: Wallet, bob: Wallet) -> Transfer:
    """A dry run, a transfer, and its replay."""
    body = transfer(ada, bob, 2_500)
    dry = create_transfer.sync(client=client, body=body, dry_run=True, idempotency_key="-")
    assert the(DryRun, dry).source_balance_after == 7_500

    key = str(uuid4())
    first = create_transfer.sync_detailed(client=client, body=body, idempotency_key=key)
    again = create_transfer.sync_detailed(client=client, body=body, idempotency_key=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    paid = the(Transfer, first.parsed)
    assert the(Transfer, again.parsed) == paid
    assert paid.source_balance_after == 7_500
    assert paid.metadata["invoice"] == "2026-11"
    return paid


def be_refused(client: Client, ada: Wallet, bob: Wallet) -> None:
    """Refusals, with their facts."""
    body = transfer(ada, bob, 9_000)
    refused = create_transfer.sync(client=client, body=body, idempotency_key=str(uuid4()))
    poor = the(InsufficientFunds, refused)
    assert (poor.available, poor.shortfall, poor.currency) == (8_000, 1_000, "USD")

    missing = read_wallet.sync(uuid4(), client=client)
    assert the(Problem, missing).code is ProblemCode.WALLET_NOT_FOUND


def pay_many(client: Client, ada: Wallet, bob: Wallet) -> None:
    """Batches of both modes, and a list of what was paid, page by page."""
    bodies: list[NewTransfer | BatchCapture] = [
        transfer(ada, bob, 10),
        transfer(ada, bob, 99_000),
        transfer(ada, bob, 20),
    ]
    atomic = NewBatch(mode=BatchMode.ATOMIC, transfers=bodies)
    refused = create_batch.sync(client=client, body=atomic, idempotency_key=str(uuid4()))
    none = the(BatchRefused, refused)
    assert none.index == 1
    assert the(InsufficientFundsRefusal, none.refusal).currency == "USD"

    each = NewBatch(mode=BatchMode.INDEPENDENT, transfers=bodies)
    done = create_batch.sync(client=client, body=each, idempotency_key=str(uuid4()))
    [first, second, third] = the(BatchResult, done).results
    posted = [the(Transfer, first).id, the(Transfer, third).id]
    assert the(InsufficientFunds, second).shortfall > 0

    found: list[UUID] = []
    page = the(TransferList, list_transfers.sync(client=client, wallet_id=bob.id, limit=2))
    found += [each.id for each in page.data]
    while page.next_cursor is not None:
        following = list_transfers.sync(
            client=client, wallet_id=bob.id, limit=2, cursor=page.next_cursor
        )
        page = the(TransferList, following)
        found += [each.id for each in page.data]
    assert not page.has_more
    assert found[:2] == posted[::-1]
    assert len(found) == len(set(found)) == 4


def give_back(client: Client, paid: Transfer) -> None:
    """A part of a transfer, and then more than is left."""
    answer = reverse_transfer.sync(
        paid.id, client=client, body=NewReversal(amount=500), idempotency_key=str(uuid4())
    )
    back = the(Transfer, answer)
    assert (back.kind, back.amount) == (TransferKind.REVERSAL, 500)
    assert back.reverses_transfer_id == paid.id
    refused = reverse_transfer.sync(
        paid.id, client=client, body=NewReversal(amount=2_001), idempotency_key=str(uuid4())
    )
    assert the(ReversalExceedsTransfer, refused).left == 2_000


def main(url: str) -> None:
    """The main job."""
    with Client(base_url=url) as client:
        user = the(User, create_user.sync(client=client, body=NewUser(name="Ada")))
        ada, bob = new_wallet(client, user, 10_000), new_wallet(client, user, 1)
        paid = pay(client, ada, bob)
        be_refused(client, ada, bob)
        pay_many(client, ada, bob)
        give_back(client, paid)

        # What is left out of a PATCH stays: the limit too.
        patch = WalletPatch(metadata=metadata(label="rent"))
        changed = the(Wallet, update_wallet.sync(ada.id, client=client, body=patch))
        assert changed.metadata["label"] == "rent"
        assert (changed.overdraft_limit, changed.status) == (500, WalletStatus.ACTIVE)

        hook = NewWebhook(
            url="https://example.com/hooks", events=[EventFilter.TRANSFER], wallet_id=bob.id
        )
        made = the(WebhookWithSecret, create_webhook.sync(client=client, body=hook))
        assert made.secret.startswith("whsec_")
    print("The main job is done.")


if __name__ == "__main__":
    main(sys.argv[1])
