"""A ledger of the deployment: its client's key, its rows, and the receiver of its events."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp

from loadtest.ledgers import KeyedLedger
from loadtest.proof.record import WalletRow
from loadtest.proof.violations import Violation
from tests.fault.chaos.ledger_reader import LedgerReader
from tests.support.api import Api
from tests.support.receivers import Receiver

_EVENTS = ["transfer.posted", "transfer.reversed", "hold.*"]
# An expiry is written within this time after the service serves again.
_EXPIRY_S = 5.0
# The lists that a client can read, of everything or of one wallet or webhook.
_LISTS = ("/users?limit=200", "/wallets?limit=200", "/webhooks?limit=200", "/currencies")
_LISTS_OF_WALLET = ("/transfers?limit=200&wallet_id=", "/holds?limit=200&wallet_id=")
# How often a list is requested again after a 503.
_REPETITIONS = 20


class ChaosLedger:
    """All ledgers have clients and users with the same names, and the same idempotency keys."""

    def __init__(self, keyed: KeyedLedger, url: str, database_url: str, receiver: Receiver) -> None:
        self.name = keyed.ledger.name
        self.headers = keyed.headers
        self.reader = LedgerReader(database_url, keyed.ledger)
        self.receiver = receiver
        self._url = url
        self._clock = asyncio.get_running_loop().time

    def __repr__(self) -> str:
        return f"<ChaosLedger {self.name}>"

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """Requests with the key of the ledger's client."""
        async with aiohttp.ClientSession() as session:
            api = Api(session, self._url)
            api.headers = self.headers
            yield api

    async def listen(self) -> None:
        """Register a webhook for all events of transfers and holds."""
        async with self.api() as api:
            reply = await api.post("/webhooks", {"url": self.receiver.url, "events": _EVENTS})
            assert reply.status == 201, reply

    async def new_wallets(self, count: int, balance: int) -> list[str]:
        """The ids of new wallets."""
        async with self.api() as api:
            # One after the other, because a protection against concurrent requests may be removed.
            return [await api.wallet(balance) for _ in range(count)]

    async def lists(self, wallet: str) -> tuple[list[bytes], list[Violation]]:
        """The answers to all lists, and a violation for each that is not answered."""
        answers, found = [], []
        async with self.api() as api:
            for path in (*_LISTS, *(f"{each}{wallet}" for each in _LISTS_OF_WALLET)):
                reply = await api.get(path)
                for _ in range(_REPETITIONS):
                    if reply.status != 503:
                        break
                    await asyncio.sleep(0.09)
                    reply = await api.get(path)
                answers.append(reply.body)
                if reply.status != 200:
                    found.append(Violation("no-list", f"GET {path} got {reply.status}"))
        return answers, found

    async def until_expired(self) -> list[Violation]:
        """Wait until the expiry of each hold that is due soon is written."""
        while True:
            soon, late = await self.reader.due_holds(_EXPIRY_S)
            if late:
                text = f"{late} holds are active {_EXPIRY_S:g} s after their expiry"
                return [Violation("late-expiry", text)]
            if not soon:
                return []
            await asyncio.sleep(0.09)

    async def until_delivered(
        self, before: Mapping[str, WalletRow], arrived: int, within_s: float
    ) -> float:
        """Wait until all events of the round have arrived, or none has arrived for `within_s`.

        Returns the time when the last event was published.
        """
        published_s = self._clock()
        deadline_s, last = published_s + within_s, (-1, -1)
        came: set[str] = set()
        # Not read in each iteration: the receiver runs in this process and needs CPU time.
        wanted = await self.reader.events(before)
        while self._clock() < deadline_s:
            received = self.receiver.received
            came.update(each.event_id for each in received[arrived:])
            arrived = len(received)
            waiting = await self.reader.waiting_events()
            if waiting > 0:
                published_s = self._clock()
            elif wanted <= came:
                wanted = await self.reader.events(before)
                if wanted <= came:
                    break
            if (len(came), waiting) != last:
                deadline_s, last = self._clock() + within_s, (len(came), waiting)
            await asyncio.sleep(0.09)
        return published_s


def named(ledger: ChaosLedger, found: Sequence[Violation], *, alone: bool) -> list[Violation]:
    """The violations with the name of the ledger, unless it is the only one."""
    if alone:
        return list(found)
    return [Violation(each.kind, f"ledger {ledger.name}: {each.text}") for each in found]
