"""A client of the HTTP API."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import orjson

_LARGE_BYTES = 2**20


@dataclass(frozen=True)
class Reply:
    """An answer: `body` is its bytes, `json` the decoded value."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem. AssertionError if its media type or its `status` is wrong."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert self.json["status"] == self.status, self
        code: str = self.json["code"]
        return code


class Api:
    """Calls to one replica."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        # Headers of every request.
        self.headers: dict[str, str] = {}

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request; `raw` replaces the JSON of `body`."""
        sent = {**self.headers, **(headers or {})}
        if key is not None:
            sent["Idempotency-Key"] = key
        content = orjson.dumps(body) if body is not None else raw
        data: bytes | io.BytesIO | None = content
        if content is not None and len(content) > _LARGE_BYTES:
            # aiohttp warns that writing so many bytes at once blocks the loop.
            data = io.BytesIO(content)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.url + path, data=data, headers=sent
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.call("GET", path, headers=headers)

    async def post(
        self,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """POST, without a key unless one is given."""
        return await self.call("POST", path, body, key=key, headers=headers)

    async def patch(self, path: str, body: object) -> Reply:
        return await self.call("PATCH", path, body)

    async def user(self, name: str = "Ada") -> str:
        """The id of a new user."""
        reply = await self.post("/users", {"name": name})
        assert reply.status == 201, reply
        id: str = reply.json["id"]
        return id

    async def wallet(self, balance: int = 0, currency: str = "USD", **more: object) -> str:
        """The id of a new wallet of a new user."""
        body = {
            "user_id": await self.user(),
            "currency": currency,
            "initial_balance": balance,
            **more,
        }
        reply = await self.post("/wallets", body, key=str(uuid4()))
        assert reply.status == 201, reply
        id: str = reply.json["id"]
        return id

    async def transfer(
        self,
        source: str,
        destination: str,
        amount: int,
        *,
        key: str | None = None,
        currency: str = "USD",
        **more: object,
    ) -> Reply:
        """POST /transfers, with a new key unless one is given."""
        body = {
            "source_wallet_id": source,
            "destination_wallet_id": destination,
            "amount": amount,
            "currency": currency,
            **more,
        }
        return await self.post("/transfers", body, key=key or str(uuid4()))

    async def hold(
        self,
        source: str,
        amount: int,
        *,
        key: str | None = None,
        currency: str = "USD",
        **more: object,
    ) -> Reply:
        """POST /holds, with a new key unless one is given."""
        body = {"source_wallet_id": source, "amount": amount, "currency": currency, **more}
        return await self.post("/holds", body, key=key or str(uuid4()))

    async def about_hold(
        self, id: str, what: str, body: object = None, *, key: str | None = None
    ) -> Reply:
        """POST /holds/{id}/capture, adjust or release, with a new key unless one is given."""
        return await self.post(f"/holds/{id}/{what}", body, key=key or str(uuid4()))

    async def money(self, wallet: str) -> tuple[int, int, int]:
        """balance, held and available of a wallet, read through the API."""
        reply = await self.get(f"/wallets/{wallet}")
        assert reply.status == 200, reply
        return reply.json["balance"], reply.json["held"], reply.json["available"]

    async def balance(self, wallet: str) -> int:
        """The balance of a wallet, read through the API."""
        reply = await self.get(f"/wallets/{wallet}")
        assert reply.status == 200, reply
        balance: int = reply.json["balance"]
        return balance

    async def funding_wallet(self, currency: str = "USD") -> str:
        """The id of a currency's funding wallet."""
        rows = (await self.get("/currencies")).json["data"]
        id: str = next(row["funding_wallet_id"] for row in rows if row["code"] == currency)
        return id
