"""Fills a running service with users, wallets and transfers, through its own API."""

import asyncio
import random
from collections.abc import Callable, Iterator
from uuid import uuid4

import aiohttp

_USERS = (
    "Ada",
    "Grace",
    "Edsger",
    "Barbara",
    "Donald",
    "Frances",
    "Tony",
    "Radia",
    "Ken",
    "Leslie",
)
_CURRENCIES = ("USD", "EUR", "JPY")
_INITIAL_MINOR = 1_000_000
_TRANSFERS = 3_000
# Concurrent requests: enough to show group commits.
_AT_ONCE = 32

Progress = Callable[[str, int, int], None]


async def fill(url: str, progress: Progress) -> None:
    """Create users, a wallet in each currency for each user, and transfers between the wallets.

    `progress` is called with the step, the number done and the total. Raises aiohttp.ClientError
    for an unexpected refusal.
    """
    async with aiohttp.ClientSession(url) as session:
        users = await _users(session, progress)
        wallets = await _wallets(session, users, progress)
        await _transfers(session, wallets, progress)


async def _users(session: aiohttp.ClientSession, progress: Progress) -> list[str]:
    ids = []
    for done, name in enumerate(_USERS, start=1):
        ids.append((await _post(session, "/users", {"name": name}))["id"])
        progress("users", done, len(_USERS))
    return ids


async def _wallets(
    session: aiohttp.ClientSession, users: list[str], progress: Progress
) -> dict[str, list[str]]:
    wallets: dict[str, list[str]] = {currency: [] for currency in _CURRENCIES}
    done = 0
    for user_id in users:
        for currency in _CURRENCIES:
            body = {"user_id": user_id, "currency": currency, "initial_balance": _INITIAL_MINOR}
            wallets[currency].append((await _post(session, "/wallets", body))["id"])
            done += 1
            progress("wallets", done, len(users) * len(_CURRENCIES))
    return wallets


async def _transfers(
    session: aiohttp.ClientSession, wallets: dict[str, list[str]], progress: Progress
) -> None:
    done = 0

    async def send(bodies: Iterator[dict[str, object]]) -> None:
        nonlocal done
        for body in bodies:
            await _post(session, "/transfers", body)
            done += 1
            progress("transfers", done, _TRANSFERS)

    bodies = (_transfer(wallets) for _ in range(_TRANSFERS))
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(send(bodies))


def _transfer(wallets: dict[str, list[str]]) -> dict[str, object]:
    currency = random.choice(_CURRENCIES)
    source, destination = random.sample(wallets[currency], 2)
    return {
        "source_wallet_id": source,
        "destination_wallet_id": destination,
        "amount": random.randint(1, 5_000),
        "currency": currency,
        "reference": random.choice(("lunch", "rent", "coffee", "tickets", "books")),
    }


async def _post(session: aiohttp.ClientSession, path: str, body: object) -> dict[str, str]:
    headers = {"Idempotency-Key": str(uuid4())}
    async with session.post(path, json=body, headers=headers) as response:
        answer: dict[str, str] = await response.json(content_type=None)
        # Expected: random transfers can empty a wallet.
        if response.status >= 400 and answer.get("code") != "insufficient-funds":
            raise aiohttp.ClientError(f"{path} answered {response.status}: {answer.get('detail')}")
        return answer
