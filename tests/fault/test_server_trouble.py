"""PostgreSQL answers, but cannot execute commands that are correct."""

import asyncio
from threading import Thread
from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.fault.conftest import IMPATIENT
from tests.support.home import proxied
from tests.support.pressure import crowd
from tests.support.truth import faults_in, row_count
from transferd.config import Limits
from transferd.ledger.store import database as store

_THREE_DO_NOT_FIT = Limits(
    request_deadline_s=2.5,
    mailbox_wait_s=1.1,
    statement_timeout_s=1.0,
    lock_timeout_s=0.1,
    command_timeout_s=1.2,
    idle_in_transaction_timeout_s=0.9,
    pool_acquire_timeout_s=2.0,
    relay_publish_timeout_s=0.5,
)
_SLOW_S = 0.1


async def _only_reads(database: Database, value: str) -> None:
    """Make the database read-only, as after a failover to a standby, and end all sessions."""
    await database.servers.on_every_node(
        f"ALTER DATABASE {database.name} SET default_transaction_read_only = {value};"
        " SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{database.name}'"
    )


async def test_a_read_only_database_is_unavailable_and_fails_no_command_for_good(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(IMPATIENT)
    ada, bob = await api.wallet(100), await api.wallet()
    before = await row_count(database, "ledger_00.transfers")
    await _only_reads(database, "on")
    codes: set[str] = set()
    # A request gets a 504 if its deadline ends an attempt. On a busy machine that may happen to all
    # requests that do not wait in the mailbox.
    while "database-unavailable" not in codes:
        replies = await crowd(api.transfer(ada, bob, 1) for _ in range(50))
        codes |= {reply.code for reply in replies}
        assert codes <= {"database-unavailable", "overloaded", "deadline-exceeded"}
    await _only_reads(database, "off")
    assert (await api.transfer(ada, bob, 1)).status == 201
    assert await row_count(database, "ledger_00.transfers") == before + 1
    assert await faults_in(database) == []


async def test_an_attempt_that_would_end_past_the_deadline_is_not_begun(
    replicas: Replicas, database: Database
) -> None:
    async with proxied(database) as proxy:
        api = await replicas.start(_THREE_DO_NOT_FIT, database_url=proxy.url)
        ada, bob = await api.wallet(100), await api.wallet()
        await _only_reads(database, "on")
        # Each attempt needs a new connection, and so about a second.
        proxy.delay_s = _SLOW_S
        # During a third attempt the outcome would be in doubt. On a busy machine the second attempt
        # may take much longer than the first, so this is repeated.
        while (reply := await api.transfer(ada, bob, 1)).code == "deadline-exceeded":
            assert reply.status == 504
    assert (reply.status, reply.code) == (503, "database-unavailable")


async def test_a_new_limit_may_be_used_in_the_same_group(
    replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(), await api.wallet()
    names: list[str] = []
    fetch = store.Transaction.fetch

    async def counted_fetch(self: store.Transaction, name: str, *arguments: object) -> Any:
        names.append(name)
        return await fetch(self, name, *arguments)

    monkeypatch.setattr(store.Transaction, "fetch", counted_fetch)
    # Both are in one mailbox and so in one group: the limit, then a transfer that needs it.
    router = replicas.opened[0].context.ledger.router
    changing = api.patch(f"/wallets/{ada}", {"overdraft_limit": 50})
    paying = [api.transfer(ada, bob, 10) for _ in range(5)]
    changed, *paid = await crowd([changing, *paying])
    assert changed.status == 200
    assert sum(reply.status == 201 for reply in paid) >= 4
    assert router.backlog == 0
    # Every group was committed: none had to be halved.
    writes = names.count("write_group") + names.count("write_group_and_changes")
    assert names.count("lock_and_look_up") == writes
    assert await faults_in(database) == []


@pytest.mark.parametrize("steps", range(6))
async def test_a_session_that_ends_while_the_process_hangs_hides_no_error(
    database: Database, steps: int
) -> None:
    """After the pause the error of the server may have been read, but not the end of its data."""
    end_sessions = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        f" WHERE datname = '{database.name}' AND pid <> pg_backend_pid()"
    )

    async def fail_after_a_pause() -> None:
        async with connected.transaction() as transaction:
            await transaction.fetch("ping")
            pause = Thread(target=asyncio.run, args=[database.fetch(end_sessions)])
            pause.start()
            pause.join()
            for _ in range(steps):
                await asyncio.sleep(0)
            raise ZeroDivisionError

    async with store.Database(database.settings(), Limits(), connections=1) as connected:
        with pytest.raises(ZeroDivisionError):
            await fail_after_a_pause()
        await connected.ping()
