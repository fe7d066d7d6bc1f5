"""The wallets of a load test: created once, found again by their keys, and refilled."""

import random
from typing import Any

import orjson

from loadtest.api import Api, ServiceError
from loadtest.book_reading import expect, read_states
from loadtest.progress import concurrently
from loadtest.proof.answers import Answer
from loadtest.scenarios import Scenario
from loadtest.world import World

# The initial balances in minor units. A shopper can make some hundred payments.
_SHOPPER_MINOR = 1_000_000
_MERCHANT_MINOR = 1_000_000
_RICH_MINOR = 1_000_000_000_000
_EMPLOYERS = 4
_TREASURIES = 4
_PURSES = 8
_PURSE_MINOR = 1_000
_CARD = "card"
_CARD_MINOR = 1_000_000


class Seeding:
    """Creates or finds the wallets of a --seed-name.

    The idempotency keys depend only on the name, currency, kind and balance, so a second run gets
    the wallets of the first one as replays.
    """

    def __init__(self, api: Api, name: str, currency: str) -> None:
        self._api = api
        self._name = f"{name}-{currency}"
        self._currency = currency

    def world(self, run: str, shoppers: int, merchants: int, scenario: Scenario) -> World:
        """All wallets of a scenario. Raises ServiceError."""
        user = self._created("/users", {"name": "load test"}, f"{self._name}-user")
        parts = {
            "shopper": (shoppers, _SHOPPER_MINOR),
            "merchant": (merchants, _MERCHANT_MINOR),
            "employer": (_EMPLOYERS, _RICH_MINOR),
            "treasury": (_TREASURIES, _RICH_MINOR),
            "purse": (_PURSES, _PURSE_MINOR),
        }
        # New for each run: holds of an earlier run may still expire.
        if scenario.cards:
            parts[_CARD] = (scenario.cards, _CARD_MINOR)
        plan = [
            (part, number, minor)
            for part, (count, minor) in parts.items()
            for number in range(count)
        ]

        def create(item: tuple[str, int, int]) -> tuple[str, str]:
            part, number, minor = item
            body = {"user_id": user, "currency": self._currency, "initial_balance": minor}
            of_run = f"-{run}" if part == _CARD else ""
            key = f"{self._name}-{part}{of_run}-{minor}-{number}"
            return part, self._created("/wallets", body, key)

        ids: dict[str, list[str]] = {part: [] for part in parts}
        for part, wallet_id in concurrently("seeding wallets", create, plan):
            ids[part].append(wallet_id)
        world = World(
            run=run,
            currency=self._currency,
            shoppers=ids["shopper"],
            merchants=ids["merchant"],
            employers=ids["employer"],
            treasuries=ids["treasury"],
            purses=ids["purse"],
            cards=ids.get(_CARD, []),
            payees=scenario.payees,
            copies=scenario.copies,
        )
        world.start = read_states(self._api, world.wallets)
        wanted = dict(zip(world.wallets, (minor for _, _, minor in plan), strict=True))
        self._fill_up(world, wanted)
        return world

    def _created(self, path: str, body: dict[str, Any], key: str) -> str:
        """The id of the user or wallet that is created with this key."""
        answer = self._api.post(path, orjson.dumps(body), key)
        _expect_permission(answer)
        return str(expect(answer, 201)["id"])

    def _fill_up(self, world: World, wanted: dict[str, int]) -> None:
        """Refill each wallet that has less than half of its initial balance."""
        poor = [
            each for each in world.wallets if world.start[each].balance_minor * 2 < wanted[each]
        ]
        if not poor:
            return
        currencies = expect(self._api.get("/currencies"), 200)["data"]
        funding = next(
            each["funding_wallet_id"] for each in currencies if each["code"] == self._currency
        )

        def fill(wallet_id: str) -> None:
            missing = wanted[wallet_id] - world.start[wallet_id].balance_minor
            body = world.transfer_body(funding, wallet_id, missing)
            key = f"{world.run}-fill-{random.getrandbits(64):x}"
            answer = self._api.post("/transfers", orjson.dumps(body), key)
            _expect_permission(answer)
            if answer.code in ("wallet-closed", "wallet-frozen"):
                raise ServiceError(
                    f"wallet {wallet_id} is no longer active: use another --seed-name"
                )
            expect(answer, 201)

        concurrently("refilling wallets", fill, poor)
        world.start = read_states(self._api, world.wallets)


def _expect_permission(answer: Answer) -> None:
    how = "transferd keys create --client loadtest --scope admin"
    if answer.status == 401:
        raise ServiceError(f"the service requires an API key: pass --api-key ({how} prints one)")
    if answer.status == 403:
        raise ServiceError(f"seeding creates money and needs an API key with scope admin: {how}")
