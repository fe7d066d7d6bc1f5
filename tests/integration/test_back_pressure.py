"""Overload, locked rows, poison and failing actors: each affects only its own requests."""

import asyncio
import socket
import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.pressure import (
    arrived,
    busy_committers,
    counted,
    crowd,
    held_rows,
    statuses,
    until_sessions_wait,
)
from tests.support.truth import faults_in, row_count
from tests.support.waiting import patient_s, until
from transferd.actors.mailbox import Mailbox
from transferd.commit import events, transaction
from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.commit.origin import Origin
from transferd.config import Limits
from transferd.domain.book import Outcome, Posted
from transferd.domain.transfer import Transfer
from transferd.domain.wallet import Wallet
from transferd.web.rendering import Rendering

Calls = list[asyncio.Task[Reply]]


async def accepted(api: Api, source: str, destination: str, *, key: str) -> Reply:
    """A transfer of 1, repeated while a busy machine misses its short deadlines."""
    while (reply := await api.transfer(source, destination, 1, key=key)).status == 503:
        assert reply.code == "overloaded"
    return reply


def begun(api: Api, source: str, destination: str, count: int) -> Calls:
    """This many transfers of 1 in flight."""
    return [asyncio.create_task(api.transfer(source, destination, 1)) for _ in range(count)]


async def test_a_full_mailbox_refuses_transfers_and_accepts_a_freeze(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(mailbox_envelopes_max=4, mailbox_refusals_burst=2, mailbox_refusals_per_s=20.0)
    api = await replicas.start(limits)
    ada, bob, cy = await api.wallet(100), await api.wallet(10), await api.wallet()
    async with busy_committers(database, api):
        queued = begun(api, ada, bob, 4)
        await arrived(replicas, 5)
        started = time.monotonic()
        for _ in range(6):
            refused = await api.transfer(ada, bob, 1, key="one too many")
            assert (refused.status, refused.code) == (429, "mailbox-full")
            assert refused.headers["Retry-After"] == "1"
        # After a burst of two, refusals to clients that retry at once have a steady rate.
        assert time.monotonic() - started >= 0.15
        # Another wallet has its own mailbox, and a freeze goes to the head of a full one.
        others = begun(api, bob, cy, 1)
        await arrived(replicas, 6)
        freeze = asyncio.create_task(api.post(f"/wallets/{ada}/freeze"))
        await arrived(replicas, 7)
    assert (await freeze).json["status"] == "frozen"
    assert {reply.code for reply in await asyncio.gather(*queued)} == {"wallet-frozen"}
    assert statuses(await asyncio.gather(*others)) == {201: 1}
    # The refused request had no effect, and its key is free.
    assert await api.balance(ada) == 100
    assert (await api.post(f"/wallets/{ada}/unfreeze")).status == 200
    assert (await api.transfer(ada, bob, 1, key="one too many")).status == 201


async def test_above_the_limit_of_the_backlog_requests_are_refused_as_overloaded(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(Limits(backlog_high=4, backlog_low=2, backlog_max=16))
    wallets = [await api.wallet(10) for _ in range(16)]
    bob = await api.wallet()
    async with busy_committers(database, api):
        # Three enter beside the transfer that keeps the committer busy; twelve wait at the gate.
        waiting = [call for wallet in wallets[:15] for call in begun(api, wallet, bob, 1)]
        await arrived(replicas, 16)
        refused = await api.transfer(wallets[15], bob, 1, key="too late")
        assert (refused.status, refused.code) == (503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
    # All waiting callers enter although no new ones come.
    assert statuses(await asyncio.wait_for(asyncio.gather(*waiting), patient_s(3))) == {201: 15}
    assert (await api.transfer(wallets[15], bob, 1, key="too late")).status == 201


async def test_a_request_that_waits_too_long_in_a_mailbox_has_no_effect(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(
        mailbox_wait_s=0.2,
        statement_timeout_s=0.15,
        idle_in_transaction_timeout_s=0.1,
        relay_publish_timeout_s=0.05,
        lock_timeout_s=0.05,
        sweep_interval_s=0.05,
    )
    api = await replicas.start(limits)
    ada, bob = await api.wallet(100), await api.wallet()
    async with busy_committers(database, api):
        [late] = await asyncio.gather(*begun(api, ada, bob, 1))
        assert (late.status, late.code) == (503, "overloaded")
        assert late.headers["Retry-After"] == "1"
    assert (await accepted(api, ada, bob, key="rent")).json["source_version"] == 2


async def test_transfers_of_a_locked_wallet_delay_no_others_and_wait_until_it_is_free(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(lock_timeout_s=1.0)
    await database.end_lock_waits(limits.lock_timeout_s)
    api = await replicas.start(limits)
    locked, ada, bob = await api.wallet(100), await api.wallet(100), await api.wallet()
    async with held_rows(database, locked):
        aside = begun(api, locked, bob, 3)
        await until_sessions_wait(database, 1)
        # The first group finds out by a lock timeout; later ones do not wait.
        assert (await api.transfer(ada, bob, 1)).status == 201
        waits = counted(replicas, "transferd_group_retries_total", cause="55P03")
        assert waits >= 1
        assert statuses(await crowd(begun(api, ada, bob, 20))) == {201: 20}
        assert counted(replicas, "transferd_group_retries_total", cause="55P03") == waits
        # Transfers into the locked wallet wait too.
        aside += begun(api, ada, locked, 1)
        await arrived(replicas, 4)
        assert not any(call.done() for call in aside)
    assert statuses(await asyncio.gather(*aside)) == {201: 4}
    assert await api.balance(locked) == 98
    assert await faults_in(database) == []


async def test_a_batch_that_waits_for_a_lock_delays_no_transfer(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(lock_timeout_s=1.9)
    await database.end_lock_waits(limits.lock_timeout_s)
    api = await replicas.start(limits)
    locked, ada, bob, carl = [await api.wallet(100) for _ in range(4)]
    moved = {"source_wallet_id": locked, "destination_wallet_id": bob, "amount": 1}
    items = {"mode": "atomic", "transfers": [{**moved, "currency": "USD"}] * 2}
    async with held_rows(database, locked):
        batch = asyncio.create_task(api.post("/transfers/batch", items, key="b"))
        await until_sessions_wait(database, 1)
        assert statuses(await crowd(begun(api, ada, carl, 20))) == {201: 20}
        # The batch has waited for the lock all the time.
        assert counted(replicas, "transferd_group_retries_total", cause="55P03") == 0
        assert not batch.done()
    assert (await batch).status == 200
    assert await faults_in(database) == []


async def test_a_wallet_that_stays_locked_is_given_up_before_the_deadline(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(
        request_deadline_s=2.0,
        mailbox_wait_s=0.4,
        statement_timeout_s=0.3,
        idle_in_transaction_timeout_s=0.2,
        relay_publish_timeout_s=0.1,
        lock_timeout_s=0.1,
        command_timeout_s=1.5,
    )
    await database.end_lock_waits(limits.lock_timeout_s)
    api = await replicas.start(limits)
    ada, bob = await api.wallet(100), await api.wallet()
    async with held_rows(database, ada):
        reply = await api.transfer(ada, bob, 1, key="rent")
        assert (reply.status, reply.code) == (503, "overloaded")
    assert (await accepted(api, ada, bob, key="rent")).json["source_version"] == 2


class Poison(Exception):
    """An unexpected error."""


def _poisoned(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Make transfers of 666 fail in this place."""
    intact = events.events_of
    render = Rendering.answer

    def check(envelope: Envelope) -> None:
        if isinstance(envelope.command, Transfer) and envelope.command.amount_minor == 666:
            raise Poison()

    def events_of(origin: Origin, outcome: Outcome) -> list[bytes]:
        if isinstance(outcome, Posted) and outcome.transfer.amount_minor == 666:
            raise Poison()
        return intact(origin, outcome)

    def answer(self: Rendering, envelope: Envelope, outcome: Outcome) -> Answer:
        check(envelope)
        return render(self, envelope, outcome)

    if where == "events":
        monkeypatch.setattr(transaction, "events_of", events_of)
    elif where == "renderer":
        monkeypatch.setattr(Rendering, "answer", answer)


@pytest.mark.parametrize("where", ["events", "renderer", "table"])
async def test_a_failing_command_gets_500_and_its_group_succeeds(
    where: str, replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await replicas.start()
    if where == "table":
        await database.fetch(
            "ALTER TABLE ledger_00.transfers ADD CONSTRAINT poison CHECK (amount <> 666)"
        )
    _poisoned(monkeypatch, where)
    ada, eve, bob = await api.wallet(1_000), await api.wallet(1_000), await api.wallet()
    async with busy_committers(database, api):
        calls = begun(api, ada, bob, 10)
        poison = [
            asyncio.create_task(api.transfer(source, bob, 666, key=f"of {source}"))
            for source in (ada, eve)
        ]
        calls += begun(api, ada, bob, 10) + begun(api, eve, bob, 10)
        await arrived(replicas, 33)
    assert statuses(await asyncio.gather(*calls)) == {201: 30}
    for reply in await asyncio.gather(*poison):
        assert (reply.status, reply.code) == (500, "internal-error")
        for secret in (b"Poison", b"Traceback", b"violates", b"ledger_00", b"INSERT"):
            assert secret not in reply.body
    assert counted(replicas, "transferd_errors_total", where="CommandPoisoned") == 2
    assert (await api.balance(ada), await api.balance(eve)) == (980, 990)
    # The key is free: without the fault, the same request succeeds.
    monkeypatch.undo()
    await database.fetch("ALTER TABLE ledger_00.transfers DROP CONSTRAINT IF EXISTS poison")
    assert (await api.transfer(ada, bob, 666, key=f"of {ada}")).status == 201
    assert await faults_in(database) == []


async def test_an_actor_that_fails_answers_its_callers_and_goes_on(
    replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await replicas.start()
    ada, eve, bob = await api.wallet(100), await api.wallet(100), await api.wallet()
    intact = Mailbox.take

    def take(self: Mailbox, envelopes_max: int) -> Sequence[Envelope]:
        if len(self) == 5:
            raise Poison()
        return intact(self, envelopes_max)

    async with busy_committers(database, api):
        broken = begun(api, ada, bob, 5)
        healthy = begun(api, eve, bob, 4)
        await arrived(replicas, 10)
        monkeypatch.setattr(Mailbox, "take", take)
    for reply in await asyncio.gather(*broken):
        assert (reply.status, reply.code) == (500, "internal-error")
    assert statuses(await asyncio.gather(*healthy)) == {201: 4}
    assert counted(replicas, "transferd_errors_total", where="ActorFailed") == 1
    assert statuses(await asyncio.gather(*begun(api, ada, bob, 3))) == {201: 3}
    assert await api.balance(ada) == 97
    await until(lambda: replicas.opened[0].context.ledger.router.live_actors == 0)


async def test_answers_do_not_depend_on_rendering_for_the_cache(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    render = Rendering.wallet
    failures = [Poison()]

    def wallet(self: Rendering, wallet: Wallet) -> bytes:
        if failures:
            raise failures.pop()
        return render(self, wallet)

    # The snapshots for the cache are rendered after the commit.
    monkeypatch.setattr(Rendering, "wallet", wallet)
    first = await api.transfer(ada, bob, 1, key="rent")
    assert first.status == 201
    assert failures == []
    assert counted(replicas, "transferd_errors_total", where="ActorFailed") == 1
    again = await api.transfer(ada, bob, 1, key="rent")
    assert again.body == first.body
    reply = await api.get(f"/wallets/{ada}?min_version={first.json['source_version']}")
    assert reply.json["balance"] == 99


def sent_again(connection: asyncio.StreamWriter) -> int:
    """How many segments of a connection had to be sent again, its SYN among them."""
    info = connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    # tcpi_total_retrans in <linux/tcp.h>.
    return int.from_bytes(info[100:104], sys.byteorder)


async def test_a_burst_of_new_connections_is_accepted_at_once(api: Api) -> None:
    address = urlsplit(api.url)
    opened = await crowd(
        (asyncio.open_connection(address.hostname, address.port) for _ in range(400)), at_once=400
    )
    retransmissions = [sent_again(writer) for _, writer in opened]
    for _, writer in opened:
        writer.close()
        await writer.wait_closed()
    # A SYN that finds the queue full is sent again, a second later.
    assert sum(retransmissions) == 0


async def test_an_overload_leaves_nothing_behind(replicas: Replicas, database: Database) -> None:
    limits = Limits(mailbox_envelopes_max=8, backlog_high=32, backlog_low=16, backlog_max=64)
    api = await replicas.start(limits)
    wallets = [await api.wallet(1_000) for _ in range(8)]
    transfers = await row_count(database, "ledger_00.transfers")
    replies = await crowd(
        (api.transfer(wallets[n % 8], wallets[(n * 3 + 1) % 8], 1) for n in range(800)),
        at_once=400,
    )
    assert {r.code for r in replies if r.status != 201} <= {"mailbox-full", "overloaded"}
    posted = statuses(replies)[201]
    assert await row_count(database, "ledger_00.transfers") == transfers + posted
    context = replicas.opened[0].context
    await until(lambda: context.ledger.router.live_actors == 0)
    assert context.ledger.router.backlog == 0
    assert "0 inside, 0 waiting" in repr(context.ledger.router)
    assert await faults_in(database) == []
