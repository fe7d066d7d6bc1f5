"""What bad requests are aimed at, and what they have to be answered."""

from dataclasses import dataclass
from typing import Any

import orjson

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import transfer_body


@dataclass(frozen=True)
class Target:
    """A replica with two wallets and a transfer, which nothing bad may change."""

    api: Api
    database: Database
    user: str
    ada: str
    bob: str
    paid: str
    before: dict[str, Any]

    def body(self, **changes: object) -> dict[str, object]:
        """The body of a good transfer, changed."""
        return transfer_body(self.ada, self.bob, 5) | changes

    async def transfer(self, raw: bytes, **headers: str) -> Reply:
        """POST /transfers with these bytes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api.call("POST", "/transfers", raw=raw, key="bad", headers=named)

    async def with_text(self, old: str, new: str) -> Reply:
        """POST /transfers with a good body in which one piece of its text is replaced."""
        good = orjson.dumps(self.body(reference="rent", metadata={"n": "m"})).decode()
        assert good.count(old) == 1
        return await self.transfer(good.replace(old, new).encode())


def assert_invalid(reply: Reply, *pointers: str) -> None:
    """422 `invalid-request` that names exactly these places."""
    assert (reply.status, reply.code) == (422, "invalid-request"), reply
    assert [error["pointer"] for error in reply.json["errors"]] == list(pointers), reply.json
    for error in reply.json["errors"]:
        assert list(error) == ["pointer", "code", "message"]
        assert error["code"]
        assert error["message"]
