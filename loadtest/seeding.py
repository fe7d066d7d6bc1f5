"""The wallets of a load test: made once, found again by their keys, filled up, and read."""

import random
from collections.abc import Callable
from typing import Any

import orjson

from loadtest.api import Api, Reply, ServiceError, side_by_side
from loadtest.audit import Tell, expect, read_states
from loadtest.scenarios import Scenario
from loadtest.world import World

# What each part begins with, in minor units: shoppers can pay some hundred times.
_SHOPPER_MINOR = 1_000_000
_MERCHANT_MINOR = 1_000_000
_RICH_MINOR = 1_000_000_000_000
_EMPLOYERS = 4
_TREASURIES = 4
_PURSES = 8
_PURSE_MINOR = 1_000


class Seeding:
    """Makes or finds the wallets of a name. Their keys tell the service which ones we mean, so a
    second run gets the first one's wallets as replays and nothing has to be kept in a file."""

    def __init__(self, api: Api, name: str, currency: str, tell: Tell) -> None:
        self._api = api
        self._name = f"{name}-{currency}"
        self._currency = currency
        self._tell = tell

    def world(self, run: str, shoppers: int, merchants: int, scenario: Scenario) -> World:
        """All that a scenario needs. Raises ServiceError."""
        user = self._user()
        parts = {
            "shopper": (shoppers, _SHOPPER_MINOR),
            "merchant": (merchants, _MERCHANT_MINOR),
            "employer": (_EMPLOYERS, _RICH_MINOR),
            "treasury": (_TREASURIES, _RICH_MINOR),
            "purse": (_PURSES, _PURSE_MINOR),
        }
        plan = [
            (part, number, minor)
            for part, (count, minor) in parts.items()
            for number in range(count)
        ]

        def make(item: tuple[str, int, int]) -> tuple[str, str]:
            part, number, minor = item
            body = {"user_id": user, "currency": self._currency, "initial_balance": minor}
            key = f"{self._name}-{part}-{minor}-{number}"
            return part, self._made("/wallets", body, key)

        made = side_by_side(make, plan, self._progress("seeding wallets", len(plan)))
        ids: dict[str, list[str]] = {part: [] for part in parts}
        for part, wallet_id in made:
            ids[part].append(wallet_id)
        world = World(
            run=run,
            currency=self._currency,
            shoppers=ids["shopper"],
            merchants=ids["merchant"],
            employers=ids["employer"],
            treasuries=ids["treasury"],
            purses=ids["purse"],
            payees=scenario.payees,
            copies=scenario.copies,
        )
        self._read(world)
        wanted = dict(zip(world.wallets, (minor for _, _, minor in plan), strict=True))
        self._fill_up(world, wanted)
        return world

    def _user(self) -> str:
        return self._made("/users", {"name": "load test"}, f"{self._name}-user")

    def _made(self, path: str, body: dict[str, Any], key: str) -> str:
        """The id of what is there under this key now."""
        reply = self._api.post(path, orjson.dumps(body), key)
        _expect_permission(reply)
        return str(expect(reply, 201)["id"])

    def _read(self, world: World) -> None:
        wallets = world.wallets
        world.start = read_states(
            self._api, wallets, lambda done, total: self._tell("reading wallets", done, total)
        )

    def _fill_up(self, world: World, wanted: dict[str, int]) -> None:
        """Who has less than half of what a wallet begins with gets the rest."""
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
            reply = self._api.post("/transfers", orjson.dumps(body), key)
            _expect_permission(reply)
            if reply.code in ("wallet-closed", "wallet-frozen"):
                raise ServiceError(
                    f"wallet {wallet_id} is no longer active: use another --seed-name"
                )
            expect(reply, 201)

        side_by_side(fill, poor, self._progress("filling up wallets", len(poor)))
        self._read(world)

    def _progress(self, what: str, total: int) -> Callable[[int], None]:
        return lambda done: self._tell(what, done, total)


def _expect_permission(reply: Reply) -> None:
    how = "transferd keys create --client loadtest --scope admin"
    if reply.status == 401:
        raise ServiceError(f"the service wants an API key: pass --api-key ({how} prints one)")
    if reply.status == 403:
        raise ServiceError(f"seeding makes money, which needs an API key with scope admin: {how}")
