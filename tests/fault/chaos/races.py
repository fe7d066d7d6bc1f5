"""Many at once for the same thing: nothing breaks, but everything is in a hurry."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import orjson

from loadtest.proof.violations import WRONG_ANSWER, Violation
from tests.fault.chaos.client import Client

# Of its size, such as 0.1 for a tenth; the wallets have enough to pay all of it.
Run = Callable[[Client, Sequence[str], float], Awaitable[list[Violation]]]

_KEYS = 1_000
_CLIENTS = 50
# Not only the same key at the same time, but several of them.
_KEYS_AT_ONCE = 8
_ORIGINALS = 10
_REVERSALS = 100
_OPPOSITE = 10_000
_UNDER_WAY = 32


@dataclass(frozen=True)
class Race:
    """`run` says what was wrong beyond what the checker finds by itself."""

    sentence: str
    run: Run


async def _keys(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    operations = [
        client.transfer(wallets[n % len(wallets)], wallets[(n + 1) % len(wallets)], 1)
        for n in range(round(_KEYS * size))
    ]
    calls = (client.ask(each, copies=_CLIENTS) for each in operations)
    await _at_once(calls, _KEYS_AT_ONCE)
    return [
        Violation(WRONG_ANSWER, f"{each.key} was not posted for everybody who asked")
        for each in operations
        if [one.status for one in each.tries].count(201) != _CLIENTS
    ]


async def _reversals(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    found = []
    ada, bob = wallets[:2]
    for _ in range(max(1, round(_ORIGINALS * size))):
        paid = client.transfer(ada, bob, _REVERSALS)
        await client.ask(paid)
        if paid.tries[-1].status != 201:
            found.append(Violation(WRONG_ANSWER, f"{paid.key} was told {paid.tries[-1].status}"))
            continue
        id = orjson.loads(paid.tries[-1].body)["id"]
        # Three times as much as there is to give back; some ask for all of it.
        asked = [_REVERSALS if n % 20 == 0 else 1 + n % 5 for n in range(_REVERSALS)]
        reversals = [client.reversal(paid, id, amount) for amount in asked]
        await _at_once(map(client.ask, reversals), _REVERSALS)
        codes = {one.code for each in reversals for one in each.tries if one.status >= 400}
        if codes - {"reversal-exceeds-transfer"}:
            found.append(Violation(WRONG_ANSWER, f"reversals were told {sorted(codes)}"))
    return found


async def _opposite(client: Client, wallets: Sequence[str], size: float) -> list[Violation]:
    ada, bob = wallets[:2]
    there = [client.transfer(ada, bob, 1) for _ in range(round(_OPPOSITE * size))]
    back = [client.transfer(bob, ada, 1) for _ in range(round(_OPPOSITE * size))]
    await asyncio.gather(*(_at_once(map(client.ask, way), _UNDER_WAY) for way in (there, back)))
    return [
        Violation(WRONG_ANSWER, f"{each.key} was told {one.status} {one.code}")
        for each in (*there, *back)
        for one in each.tries
        if one.status not in (201, 429)
    ]


async def _at_once(calls: Iterable[Awaitable[None]], most: int) -> None:
    """So many of them at a time, in their order."""
    left = iter(calls)

    async def work() -> None:
        for call in left:
            await call

    await asyncio.gather(*(work() for _ in range(most)))


RACES: dict[str, Race] = {
    "race-keys": Race("50 clients race on each of 1,000 keys.", _keys),
    "race-reversals": Race("100 reversals of one transfer at once, of ten transfers.", _reversals),
    "race-opposite": Race("Two send each other 10,000 transfers, 32 at a time each.", _opposite),
}
