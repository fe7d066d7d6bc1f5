"""Requests about holds, as the load and the race send them, with keys that the client makes."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from random import Random

from loadtest.proof.record import Kind, Operation
from tests.support.api import Api, Reply

# The default share of requests about holds in the load.
HOLDS = 0.2
# The longest of the short expiries, so that holds expire during a round.
EXPIRES_IN_S_MAX = 3.0
LONG_S = 7 * 24 * 3600
_AMOUNTS = (1, 60)
_TOO_MUCH = 10**9
_RECENT = 60


def now_us() -> int:
    """Microseconds since 1970, by the clock of this machine, which the database uses too."""
    return time.time_ns() // 1_000


def text_of(instant_us: int) -> str:
    """An instant as requests have it."""
    seconds, rest_us = divmod(instant_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_us:06}Z"


class HoldRequests:
    """Makes requests that are not sent yet. `key` returns a new key.

    `expires_in_s_max` is the longest of the short expiries.
    """

    def __init__(self, random: Random, key: Callable[[], str], expires_in_s_max: float) -> None:
        self._random = random
        self._key = key
        self._expires_in_s_max = int(expires_in_s_max)
        # The requests that created holds, each with the id of its hold.
        self._known: list[tuple[Operation, str]] = []
        self._numbers = count()

    def created(self, operation: Operation, hold: str) -> None:
        """The hold exists, so further requests may change it."""
        self._known.append((operation, hold))

    def any(self, source: str, destination: str) -> Operation:
        """A random request: a new hold between these wallets, or a change of a recent hold."""
        chance = self._random.random()
        if chance < 0.4 or not self._known:
            is_short = self._random.random() < 0.6
            expires_in_s = self._random.randint(1, self._expires_in_s_max) if is_short else LONG_S
            is_small = self._random.random() < 0.95
            amount = self._random.randint(*_AMOUNTS) if is_small else _TOO_MUCH
            return self.create(source, destination, amount, expires_in_s)
        created, hold = self._random.choice(self._known[-_RECENT:])
        amount = self._random.randint(*_AMOUNTS)
        if chance < 0.6:
            return self.capture(created, hold, amount, final=False)
        if chance < 0.75:
            return self.capture(created, hold, self._random.choice((0, amount)), final=True)
        if chance < 0.9:
            expires_in_s = self._random.choice((self._expires_in_s_max, LONG_S))
            return self.adjust(created, hold, amount, expires_in_s)
        return self.release(created, hold)

    def captures(self, most: int) -> list[Operation]:
        """Captures of up to so many different recent holds, also of those that have ended."""
        recent = self._known[-_RECENT:]
        chosen = self._random.sample(recent, min(most, len(recent)))
        return [
            self.capture(
                created, hold, self._random.randint(*_AMOUNTS), final=self._random.random() < 0.3
            )
            for created, hold in chosen
        ]

    def recent_payer(self) -> str | None:
        """The wallet that pays a recent hold; None if there is no hold."""
        return self._random.choice(self._known[-_RECENT:])[0].source if self._known else None

    def create(self, source: str, destination: str, amount: int, expires_in_s: int) -> Operation:
        return Operation(
            Kind.HOLD, self._key(), source, destination, amount, expires_in_s=expires_in_s
        )

    def capture(self, created: Operation, hold: str, amount: int, *, final: bool) -> Operation:
        """A capture; an amount of 0 asks for all that is left."""
        return replace(self._about(created, hold, Kind.CAPTURE), amount=amount, final=final)

    def adjust(self, created: Operation, hold: str, amount: int, expires_in_s: int) -> Operation:
        """A new amount, and an expiry that no other request asks for."""
        # The number makes it unique among the requests of this millisecond.
        expires_ms = now_us() // 1_000 + expires_in_s * 1_000
        expires_us = expires_ms * 1_000 + next(self._numbers) % 1_000
        asked = self._about(created, hold, Kind.ADJUST)
        return replace(asked, amount=amount, expires_us=expires_us)

    def release(self, created: Operation, hold: str) -> Operation:
        return self._about(created, hold, Kind.RELEASE)

    def _about(self, created: Operation, hold: str, kind: Kind) -> Operation:
        return Operation(kind, self._key(), created.source, created.destination, hold=hold)


def body_of_capture(operation: Operation) -> dict[str, object]:
    """The body of a capture, alone or as an item of a batch."""
    amount = {"amount": operation.amount} if operation.amount else {}
    return {**amount, "final": operation.final}


async def reply_about_hold(api: Api, operation: Operation) -> Reply:
    """Send the request."""
    match operation.kind:
        case Kind.HOLD:
            return await api.hold(
                operation.source,
                operation.amount,
                key=operation.key,
                destination_wallet_id=operation.destination,
                expires_in_s=operation.expires_in_s,
            )
        case Kind.CAPTURE:
            body: object = body_of_capture(operation)
        case Kind.ADJUST:
            expires_at = text_of(operation.expires_us)
            body = {"amount": operation.amount, "expires_at": expires_at}
        case _:
            body = None
    return await api.about_hold(operation.hold, operation.kind.value, body, key=operation.key)
