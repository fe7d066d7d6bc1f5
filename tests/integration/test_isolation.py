"""What one client does has no effect in another ledger, and shows it nothing."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Database, Replicas, Workers
from tests.support.api import Api, Reply
from tests.support.contract import ApiWithKey, api_key, contents, transfer_body
from tests.support.deliveries import logged_delivery
from tests.support.events import following
from tests.support.pressure import (
    busy_committers,
    counted,
    crowd,
    held_rows,
    statuses,
    until_sessions_wait,
)
from tests.support.probes import NAMES, Probe, Request, probes_of
from tests.support.waiting import until
from transferd.cache.link import Link
from transferd.config import Limits
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.ids import new_id
from transferd.ledger.migrate import create_ledger
from transferd.ledger.store.database import LedgerDatabase, SchemaTransaction
from transferd.web.application import OPERATIONS
from transferd.web.operations import Operation
from transferd.web.streams import EVENT_STREAM

_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_NEW = re.compile(rf"{_ID.pattern}|whsec_[^\"]+|[-0-9]{{10}}T[:.0-9]{{15}}Z")
# The tasks that look for due holds, and for events of open streams, make statements as well.
_LIMITS = Limits(expiry_sweep_s=3600.0, stream_poll_s=3600.0)
_CONSTANTS = {
    "one": "1",
    "true": "true",
    "version": "0",
    "tag": "*",
    "another tag": '"another"',
    "currency": "USD",
    "hold status": "active",
    "delivery status": "retrying",
    "request id": "probe",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


def new_key(ledger: Ledger) -> dict[str, str]:
    """A key that no request had."""
    return {"new key": f"new {new_id(ledger)}"}


class Client:
    """A client of a ledger with all rights. Those of all ledgers do the same with the same keys."""

    def __init__(self, api: Api, database: Database, ledger: Ledger) -> None:
        self.api = api
        self.ledger = ledger
        self._database = database
        self._rounds = count()

    async def made(self) -> dict[str, str]:
        """New things of all kinds: what to fill into the gaps of a request."""
        api, n = self.api, next(self._rounds)

        async def one(path: str, key: str, **body: object) -> str:
            id: str = (await api.post(path, body, key=f"{key} {n}")).json["id"]
            return id

        _, user = await asyncio.gather(*(one("/users", f"{m}. user", name="Ada") for m in range(2)))
        ada, bob, empty = await asyncio.gather(
            *(
                one("/wallets", name, user_id=user, currency="USD", initial_balance=balance)
                for name, balance in (("ada", 10**6), ("bob", 0), ("empty", 0))
            )
        )
        known = f"known {new_id(self.ledger)}"
        calls: list[Awaitable[Any]] = [
            api.transfer(ada, bob, 3000, key=known, reference="rent"),
            api.transfer(ada, bob, 3000, key=f"second {n}", reference="rent"),
            *(api.hold(ada, 20_000, key=f"{m}. hold {n}") for m in range(2)),
            *(
                one("/webhooks", f"{m}. hook", url="https://example.com/", events=["*"])
                for m in range(2)
            ),
        ]
        paid, _, _, hold, _, webhook = await asyncio.gather(*calls)
        _, delivery = await asyncio.gather(
            *(logged_delivery(self._database, webhook, self.ledger) for _ in range(2))
        )
        return {
            **_CONSTANTS,
            "user": user,
            "wallet": ada,
            "other wallet": bob,
            "empty wallet": empty,
            "transfer": paid.json["id"],
            "hold": hold.json["id"],
            "webhook": webhook,
            "delivery": delivery,
            "known key": known,
            **new_key(self.ledger),
            "time": paid.json["created_at"],
        }

    async def cursor(self, probe: Probe, things: Mapping[str, str]) -> str:
        """The cursor of the first page of the list that the probe reads."""
        first = probe._replace(target=re.sub("cursor=<cursor>", "limit=1", probe.target))
        request = first.filled([things[kind] for kind in first.kinds])
        reply = await self.api.call("GET", request.target)
        cursor: str = reply.json["next_cursor"]
        assert cursor, reply
        return cursor


class Two(NamedTuple):
    """Clients of two ledgers, with the same name."""

    main: Client
    shop: Client


async def opened(replicas: Replicas, database: Database, limits: Limits) -> Two:
    """Two ledgers in one replica."""
    shop = await create_ledger(database.settings(), Limits(), "shop")
    api = await replicas.start(limits, auth="on")
    clients = []
    for ledger in (MAIN, shop):
        token = await api_key(database, f"of{ledger.number}", "admin", client="till", ledger=ledger)
        clients.append(Client(ApiWithKey(api, token), database, ledger))
    return Two(*clients)


@pytest.fixture
async def two(replicas: Replicas, database: Database) -> Two:
    return await opened(replicas, database, _LIMITS)


class Seen(NamedTuple):
    """What a client sees of an answer, except for what it has sent, and for what is new in it.

    `calls` are the statements and the calls of Redis that it has led to: they take the time.
    """

    status: int
    headers: Mapping[str, str]
    body: str
    calls: Sequence[str]


class Calls:
    """Writes down the statements in ledgers and the calls of Redis."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._found: list[str] = []
        for of, name, described in (
            (LedgerDatabase, "fetch", lambda self, *a: f"{self.ledger.schema} {a[0]}"),
            (LedgerDatabase, "run_script", lambda self, *a: f"{self.ledger.schema} {a[0]}"),
            (SchemaTransaction, "fetch", lambda self, *a: f"{self._schema} {a[0]}"),
            (Link, "run", lambda _, script, *__: f"redis {script.source}"),
            (Link, "get_many", lambda _, keys: f"redis {keys}"),
        ):
            monkeypatch.setattr(of, name, self._noting(getattr(of, name), described))

    def take(self) -> list[str]:
        """Those since the last call."""
        found, self._found = self._found, []
        return found

    def _noting(self, call: Any, described: Callable[..., str]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            self._found.append(described(*arguments))
            return call(*arguments)

        return noting


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


async def ask(client: Client, request: Request, sent: Sequence[str], calls: Calls) -> Seen:
    """Send a request that has the texts `sent`. No other id of the answer is of another ledger."""
    calls.take()
    headers = client.api.headers | dict(request.headers)
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    async with client.api.session.request(
        request.method, client.api.url + request.target, data=request.body, headers=headers
    ) as response:
        # A stream has no end.
        has_end = response.content_type != EVENT_STREAM
        body = (await response.read()).decode() if has_end else ""
    for id in _ID.findall(f"{response.headers} {body}"):
        assert id in " ".join(sent) or UUID(id).int >> 64 & 0xFFF == client.ledger.number, body
    if response.status >= 400:
        assert not re.search(r"ledger_|\bmain\b|\bshop\b", body), body

    def masked(text: str) -> str:
        for each in sent:
            text = text.replace(each, "SENT")
        return _NEW.sub("NEW", text)

    left = {name: masked(value) for name, value in response.headers.items() if name != "Date"}
    return Seen(response.status, left, masked(body), [masked(call) for call in calls.take()])


def combinations(probe: Probe) -> Iterator[set[int]]:
    """The gaps to fill with names of another ledger: each that takes a name, and all of them."""
    named = [n for n, kind in enumerate(probe.kinds) if kind in NAMES]
    yield from ({n} for n in named)
    if len(named) > 1:
        yield set(named)


def like(text: str) -> str:
    """Another id or key of the same form, with the same time and number, which nothing has."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def numbered(text: str, ledger: Ledger) -> str:
    """As `like`, for an id with the number of `ledger`."""
    return _ID.sub(lambda match: f"{match[0][:15]}{ledger.number:03x}{match[0][18:]}", like(text))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_a_name_of_another_ledger_is_like_an_unknown_one(
    operation: Operation, two: Two, database: Database, calls: Calls
) -> None:
    theirs, ours = await two.main.made(), await two.shop.made()
    for probe in probes_of(operation):
        if "cursor" in probe.kinds:
            theirs["cursor"] = await two.main.cursor(probe, theirs)
            ours["cursor"] = await two.shop.cursor(probe, ours)
        sent = [theirs[kind] for kind in probe.kinds]
        found = await ask(two.main, probe.filled(sent), sent, calls)
        assert found.status in (200, operation.status), (probe, found)
        foreign = theirs
        if operation.method != "GET":
            # The request has used up what it named, except for its key.
            foreign = await two.main.made() | {"new key": theirs["new key"]}
            theirs = await two.main.made()
        before = await contents(database, MAIN.schema)
        for gaps in combinations(probe):
            answers = []
            for name in (str, like, lambda text: numbered(text, two.shop.ledger)):
                values = [
                    name(foreign[kind]) if n in gaps else ours[kind]
                    for n, kind in enumerate(probe.kinds)
                ]
                answers.append(await ask(two.shop, probe.filled(values), values, calls))
                if operation.method != "GET":
                    is_done = answers[-1].status < 300
                    ours = await two.shop.made() if is_done else ours | new_key(two.shop.ledger)
            assert answers == [answers[0]] * 3, probe
            if {probe.kinds[n] for n in gaps} == {"new key"}:
                assert "Idempotent-Replayed" not in answers[0].headers
            else:
                assert answers[0][:3] != found[:3], probe
        assert await contents(database, MAIN.schema) == before


async def test_what_happens_in_another_ledger_changes_no_answer(two: Two) -> None:
    await two.main.made()
    ours = await two.shop.made()
    # Most lists have a further page.
    await two.shop.made()
    requests = []
    for operation in OPERATIONS:
        if operation.method == "GET" and operation.media_type != EVENT_STREAM:
            for probe in probes_of(operation):
                if "cursor" in probe.kinds:
                    ours["cursor"] = await two.shop.cursor(probe, ours)
                requests.append(probe.filled([ours[kind] for kind in probe.kinds]))
    assert len(requests) > 30

    async def answers() -> list[tuple[int, dict[str, str], bytes]]:
        found = []
        for request in requests:
            reply = await two.shop.api.get(request.target, request.headers)
            varies = ("Date", "X-Cache")
            headers = {name: v for name, v in reply.headers.items() if name not in varies}
            found.append((reply.status, headers, reply.body))
        return found

    before = await answers()
    for _ in range(3):
        await two.main.made()
    assert await answers() == before


async def test_the_same_key_at_once_in_both_ledgers_is_two_commands(
    two: Two, database: Database
) -> None:
    wallets = [(await each.api.wallet(100), await each.api.wallet()) for each in two]
    replies = await crowd(
        each.api.transfer(*pair, 60, key="rent")
        for _ in range(20)
        for each, pair in zip(two, wallets, strict=True)
    )
    assert statuses(replies) == {201: 40}
    for n, each in enumerate(two):
        assert len({reply.body for reply in replies[n::2]}) == 1
        [row] = await database.fetch(f"SELECT count(*) FROM {each.ledger.schema}.outcomes")
        # And the wallet with a balance.
        assert row[0] == 3


async def test_metrics_name_no_ledger(two: Two, database: Database, workers: Workers) -> None:
    worker = await workers.start()
    for each in two:
        await each.made()
    for each in two:

        async def is_published(schema: str = each.ledger.schema) -> bool:
            return not await database.fetch(f"SELECT FROM {schema}.outbox")

        await until(is_published)
    names = {name for each in two for name in (each.ledger.name, each.ledger.schema)}
    names.add(str(two.shop.ledger.number))
    for url in (two.main.api.url, worker.url):
        async with two.main.api.session.get(f"{url}/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
        assert len(families) > 20
        for family in families:
            assert not any(name in family.name for name in names if not name.isdigit())
            for sample in family.samples:
                assert "ledger" not in sample.labels
                assert names.isdisjoint(sample.labels.values()), sample


# Blocking


async def test_a_locked_wallet_delays_no_other_ledger(
    replicas: Replicas, database: Database
) -> None:
    two = await opened(replicas, database, Limits())
    ada, bob = await two.main.api.wallet(100), await two.main.api.wallet()
    batch = {"mode": "atomic", "transfers": [transfer_body(ada, bob)]}
    requests = []
    for operation in OPERATIONS:
        if operation.media_type != EVENT_STREAM:
            ours, probe = await two.shop.made(), probes_of(operation)[0]
            requests.append((operation, probe.filled([ours[kind] for kind in probe.kinds])))
    async with held_rows(database, ada):
        waiting = [
            asyncio.create_task(call)
            for call in (
                two.main.api.transfer(ada, bob, 1),
                two.main.api.post("/transfers/batch", batch, key="batch"),
                two.main.api.post(f"/wallets/{ada}/freeze", key="freeze"),
            )
        ]
        await until_sessions_wait(database, 2)
        for operation, request in requests:
            body = None if request.body is None else orjson.loads(request.body)
            reply = await two.shop.api.call(
                request.method, request.target, body, headers=request.headers
            )
            assert reply.status == operation.status, reply
        # The first waits for the lock have not ended.
        assert counted(replicas, "transferd_group_retries_total", cause="55P03") == 0
        assert not any(call.done() for call in waiting)
    await asyncio.gather(*waiting)


async def test_a_full_ledger_leaves_the_others_served(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(
        mailbox_envelopes_max=4,
        backlog_high=8,
        backlog_low=4,
        backlog_max=16,
        batches_max=1,
        batch_wait_s=0.1,
        streams_max=1,
    )
    two = await opened(replicas, database, limits)
    main, shop = two.main.api, two.shop.api
    wallets, bob = [await main.wallet(100) for _ in range(3)], await main.wallet()
    own, other = await shop.wallet(100), await shop.wallet()
    [router] = [
        each.router for each in replicas.opened[0].context.ledgers if each.database.ledger == MAIN
    ]

    def sent(source: str, count: int) -> list[asyncio.Task[Reply]]:
        return [asyncio.create_task(main.transfer(source, bob, 1)) for _ in range(count)]

    async with busy_committers(database, main):
        calls = sent(wallets[0], 4)
        await until(lambda: router.backlog == 5)
        assert (await main.transfer(wallets[0], bob, 1)).code == "mailbox-full"
        # The mailbox of a wallet with this id is that of the other ledger.
        assert (await shop.transfer(wallets[0], other, 1)).code == "wallet-not-found"
        calls += sent(wallets[1], 4) + sent(wallets[2], 7)
        await until(lambda: router.backlog == 16)
        assert (await main.transfer(wallets[2], bob, 1)).code == "overloaded"
        assert statuses(await crowd(shop.transfer(own, other, 1) for _ in range(4))) == {201: 4}
    await asyncio.gather(*calls)

    def batch(source: str, destination: str) -> dict[str, object]:
        return {"mode": "atomic", "transfers": [transfer_body(source, destination)]}

    async with held_rows(database, wallets[0]):
        first = asyncio.create_task(
            main.post("/transfers/batch", batch(wallets[0], bob), key="first")
        )
        await until_sessions_wait(database, 1)
        refused = await main.post("/transfers/batch", batch(wallets[1], bob), key="second")
        assert refused.code == "overloaded"
        assert (await shop.post("/transfers/batch", batch(own, other), key="first")).status == 200
        assert not first.done()
    assert (await first).status == 200

    async with following(main, bob), following(shop, other) as stream:
        assert (await main.get(f"/wallets/{bob}/events")).code == "overloaded"
        assert (await shop.get(f"/wallets/{other}/events")).code == "overloaded"
        await shop.transfer(own, other, 1)
        assert (await stream.event()).cloud_event["data"]["source_wallet_id"] == own
