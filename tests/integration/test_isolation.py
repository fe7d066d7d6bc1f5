"""What one client does has no effect in another ledger, and shows it nothing."""

import re
from asyncio import gather
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import ApiWithKey, api_key, contents
from tests.support.deliveries import logged_delivery
from tests.support.probes import NAMES, Probe, Request, probes_of
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

        _, user = await gather(*(one("/users", f"{m}. user", name="Ada") for m in range(2)))
        ada, bob, empty = await gather(
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
        paid, _, _, hold, _, webhook = await gather(*calls)
        _, delivery = await gather(
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


@pytest.fixture
async def two(replicas: Replicas, database: Database) -> Two:
    """Two ledgers in one replica."""
    shop = await create_ledger(database.settings(), Limits(), "shop")
    api = await replicas.start(_LIMITS, auth="on")
    clients = []
    for ledger in (MAIN, shop):
        token = await api_key(database, f"of{ledger.number}", "admin", client="till", ledger=ledger)
        clients.append(Client(ApiWithKey(api, token), database, ledger))
    return Two(*clients)


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
