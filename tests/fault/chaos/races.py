"""Many concurrent requests for the same key, transfer, hold or wallets, without a fault."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import orjson

from loadtest.proof.answers import micros_of
from loadtest.proof.violations import WRONG_ANSWER, Violation
from tests.fault.chaos.client import Client
from tests.fault.chaos.hold_requests import LONG_S

# A race of this size: 0.1 is a tenth, also of what is sent at a time. The wallets have enough money
# for all payments. Returns the violations that the checker does not find by itself.
Race = Callable[[Client, Sequence[str], float], Awaitable[list[Violation]]]

_KEYS = 1_000
_CLIENTS = 50
# Keys in use at a time; all clients send each of them.
_KEYS_AT_ONCE = 8
_ORIGINALS = 10
_REVERSALS = 100
_OPPOSITE = 10_000
_IN_FLIGHT = 32
_HOLDS = 1_000
# Half of them wait for their expiry.
_HOLDS_AT_ONCE = 64
_HOLD = 30
# When the requests for a hold that expires are sent, in seconds from its expiry. They need about a
# tenth of a second to get to the lock of its wallet.
_FROM_EXPIRY_S = (-0.25, 0.0)
_HOLD_REFUSALS = {"hold-expired", "hold-not-active", "capture-exceeds-hold"}


async def _keys(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    operations = [
        client.transfer(wallets[n % len(wallets)], wallets[(n + 1) % len(wallets)], 1)
        for n in range(round(_KEYS * size))
    ]
    sent = (client.send(each, copies=_CLIENTS) for each in operations)
    await _at_once(sent, _KEYS_AT_ONCE, size)
    return [
        Violation(WRONG_ANSWER, f"{each.key} was not posted for every client")
        for each in operations
        if [one.status for one in each.tries].count(201) != _CLIENTS
    ]


async def _reversals(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    found = []
    ada, bob = wallets[:2]
    for _ in range(max(1, round(_ORIGINALS * size))):
        paid = client.transfer(ada, bob, _REVERSALS)
        await client.send(paid)
        if paid.tries[-1].status != 201:
            found.append(Violation(WRONG_ANSWER, f"{paid.key} got {paid.tries[-1].status}"))
            continue
        id = orjson.loads(paid.tries[-1].body)["id"]
        # Together three times the amount of the transfer; some ask for the whole amount.
        asked = [_REVERSALS if n % 20 == 0 else 1 + n % 5 for n in range(_REVERSALS)]
        reversals = [client.reversal(paid, id, amount) for amount in asked]
        await asyncio.gather(*map(client.send, reversals))
        codes = {one.code for each in reversals for one in each.tries if one.status >= 400}
        if codes - {"reversal-exceeds-transfer"}:
            found.append(Violation(WRONG_ANSWER, f"reversals got {sorted(codes)}"))
    return found


async def _opposite(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    ada, bob = wallets[:2]
    there = [client.transfer(ada, bob, 1) for _ in range(round(_OPPOSITE * size))]
    back = [client.transfer(bob, ada, 1) for _ in range(round(_OPPOSITE * size))]
    ways = (_at_once(map(client.send, way), _IN_FLIGHT, size) for way in (there, back))
    await asyncio.gather(*ways)
    return [
        Violation(WRONG_ANSWER, f"{each.key} got {one.status} {one.code}")
        for each in (*there, *back)
        for one in each.tries
        if one.status not in (201, 429)
    ]


async def _holds(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    found: list[Violation] = []
    numbers = range(round(_HOLDS * size))
    races = (_race_for_hold(client, wallets, n, found) for n in numbers)
    await _at_once(races, _HOLDS_AT_ONCE, size)
    return found


async def _race_for_hold(
    client: Client, wallets: Sequence[str], number: int, found: list[Violation]
) -> None:
    """Capture, adjust and release a hold at once; every second one expires at that time.

    Nginx chooses the replica of each request by its key.
    """
    source, destination = wallets[number % len(wallets)], wallets[(number + 1) % len(wallets)]
    expires = number % 2 == 1
    created = client.holds.create(source, destination, _HOLD, 1 if expires else LONG_S)
    await client.send(created)
    if created.tries[-1].status != 201:
        found.append(Violation(WRONG_ANSWER, f"{created.key} got {created.tries[-1].status}"))
        return
    hold = orjson.loads(created.tries[-1].body)
    if expires:
        offset_s = client.random.uniform(*_FROM_EXPIRY_S)
        due_s = (micros_of(hold["expires_at"]) or 0) / 1e6
        await asyncio.sleep(max(0.0, due_s + offset_s - time.time()))
    last = client.holds.capture(created, hold["id"], 0, final=True)
    release = client.holds.release(created, hold["id"])
    others = [
        client.holds.capture(created, hold["id"], 10, final=False),
        client.holds.adjust(created, hold["id"], 2 * _HOLD, 1 if expires else LONG_S),
    ]
    requests = [last, release, *others]
    client.random.shuffle(requests)
    await asyncio.gather(*(client.send(each) for each in requests))
    ends = [each.key for each in (last, release) if each.tries[-1].status in (200, 201)]
    if len(ends) > 1 or (not ends and not expires):
        found.append(Violation(WRONG_ANSWER, f"hold {hold['id']} was ended by {ends}"))
    codes = {one.code for each in requests for one in each.tries if 400 <= one.status != 429}
    if codes - _HOLD_REFUSALS:
        found.append(Violation(WRONG_ANSWER, f"hold {hold['id']} got {sorted(codes)}"))


async def _at_once(calls: Iterable[Awaitable[None]], most: int, size: float) -> None:
    """Await the calls in their order, at most `most` times `size` at the same time."""
    left = iter(calls)

    async def work() -> None:
        for call in left:
            await call

    await asyncio.gather(*(work() for _ in range(max(1, round(most * size)))))


RACES: dict[str, Race] = {
    "race-keys": _keys,
    "race-reversals": _reversals,
    "race-opposite": _opposite,
    "race-holds": _holds,
}
