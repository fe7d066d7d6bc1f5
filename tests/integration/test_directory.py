"""Which endpoints get an event, and that the time to find them does not depend on the others."""

import time

from tests.conftest import Database
from tests.support.endpoints import delete_webhook, new_webhook, update_webhook
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import WebhookStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.deliveries import LOG
from transferd.ledger.store.webhooks import webhooks_version
from transferd.notifications.directory import Directory

URL = "https://receiver.example/"
ADA, BOB, CY = (f"019a0000-0000-7000-8000-00000000000{letter}" for letter in "abc")


async def read(store: LedgerDatabase, directory: Directory) -> Directory:
    """The directory as of now."""
    async with store.transaction() as transaction:
        await directory.refresh(transaction, await webhooks_version(transaction))
    return directory


async def test_an_event_is_for_the_log_and_each_webhook_once(
    database: Database, store: LedgerDatabase
) -> None:
    both = await new_webhook(database, URL, "transfer.*", "transfer.posted")
    ada = await new_webhook(database, URL, wallet=ADA)
    bob = await new_webhook(database, URL, wallet=BOB)
    directory = await read(store, Directory(with_log=True))
    assert directory.wanting("transfer.posted", [BOB, ADA]) == [LOG, both, bob, ada]
    assert directory.wanting("user.created", []) == [LOG]


async def test_an_event_is_for_a_disabled_webhook_too_and_not_for_a_deleted_one(
    database: Database, store: LedgerDatabase
) -> None:
    disabled, deleted = [await new_webhook(database, URL) for _ in range(2)]
    directory = await read(store, Directory(with_log=False))
    await update_webhook(database, disabled, status=WebhookStatus.DISABLED, reason="asked to")
    await delete_webhook(database, deleted)
    # Nothing is read until the version changes.
    assert set(directory.wanting("transfer.posted", [])) == {disabled, deleted}
    assert not directory.is_disabled(disabled)
    await read(store, directory)
    assert directory.wanting("transfer.posted", []) == [disabled]
    assert directory.is_disabled(disabled)
    assert not directory.exists(deleted)


async def add_webhooks(database: Database, count: int) -> None:
    """Add this many webhooks, each for another wallet."""
    await database.fetch(
        "INSERT INTO ledger_00.webhooks (id, client_id, url, events, wallet_id, secret, status,"
        " created_at, updated_at) SELECT gen_random_uuid(), 0, $2, '{*}', gen_random_uuid(),"
        " 'whsec_AAAA', 0, now(), now() FROM generate_series(1, $1)",
        count,
        URL,
    )
    await database.fetch("UPDATE ledger_00.webhooks_version SET version = version + 1")


def fastest_s(directory: Directory, wallets: list[str], expected: list[str]) -> float:
    """The shortest time to find the endpoints of 200 events."""
    times = []
    for _ in range(20):
        started = time.perf_counter()
        found = [directory.wanting("transfer.posted", wallets) for _ in range(200)]
        times.append(time.perf_counter() - started)
        assert all(each == expected for each in found)
    return min(times)


async def test_webhooks_of_other_wallets_cost_an_event_nothing(
    database: Database, store: LedgerDatabase
) -> None:
    ada = await new_webhook(database, URL, wallet=ADA)
    wallets = [ADA, new_id(MAIN)]
    await add_webhooks(database, 9)
    directory = await read(store, Directory(with_log=True))
    few_s = fastest_s(directory, wallets, [LOG, ada])
    await add_webhooks(database, 9_990)
    await read(store, directory)
    assert repr(directory).startswith("<Directory of 10000 webhooks")
    many_s = fastest_s(directory, wallets, [LOG, ada])
    # A scan of a thousand times as many webhooks takes hundreds of times as long.
    assert many_s < 10 * few_s
