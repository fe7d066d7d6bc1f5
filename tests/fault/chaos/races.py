"""Many concurrent requests for the same key, transfer or wallets, without a fault."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import orjson

from loadtest.proof.violations import WRONG_ANSWER, Violation
from tests.fault.chaos.client import Client

# A race of this size: 0.1 is a tenth. The wallets have enough money for all payments. Returns the
# violations that the checker does not find by itself.
Race = Callable[[Client, Sequence[str], float], Awaitable[list[Violation]]]

_KEYS = 1_000
_CLIENTS = 50
# Keys in use at a time; all clients send each of them.
_KEYS_AT_ONCE = 8
_ORIGINALS = 10
_REVERSALS = 100
_OPPOSITE = 10_000
_IN_FLIGHT = 32


async def _keys(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    operations = [
        client.transfer(wallets[n % len(wallets)], wallets[(n + 1) % len(wallets)], 1)
        for n in range(round(_KEYS * size))
    ]
    await _at_once((client.send(each, copies=_CLIENTS) for each in operations), _KEYS_AT_ONCE)
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
        await _at_once(map(client.send, reversals), _REVERSALS)
        codes = {one.code for each in reversals for one in each.tries if one.status >= 400}
        if codes - {"reversal-exceeds-transfer"}:
            found.append(Violation(WRONG_ANSWER, f"reversals got {sorted(codes)}"))
    return found


async def _opposite(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    ada, bob = wallets[:2]
    there = [client.transfer(ada, bob, 1) for _ in range(round(_OPPOSITE * size))]
    back = [client.transfer(bob, ada, 1) for _ in range(round(_OPPOSITE * size))]
    await asyncio.gather(*(_at_once(map(client.send, way), _IN_FLIGHT) for way in (there, back)))
    return [
        Violation(WRONG_ANSWER, f"{each.key} got {one.status} {one.code}")
        for each in (*there, *back)
        for one in each.tries
        if one.status not in (201, 429)
    ]


async def _at_once(calls: Iterable[Awaitable[None]], most: int) -> None:
    """Await the calls in their order, at most this many at the same time."""
    left = iter(calls)

    async def work() -> None:
        for call in left:
            await call

    await asyncio.gather(*(work() for _ in range(most)))


RACES: dict[str, Race] = {
    "race-keys": _keys,
    "race-reversals": _reversals,
    "race-opposite": _opposite,
}
