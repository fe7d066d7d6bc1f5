"""Invalid requests of many kinds, and the answers that the contract requires."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

import orjson

from loadtest.proof.answers import Answer
from loadtest.proof.violations import (
    BAD_REQUEST_TAKEN,
    SERVER_ERROR_ON_BAD_REQUEST,
    WRONG_ANSWER,
)
from loadtest.world import World

JSON: Final = "application/json"


@dataclass(frozen=True)
class Attack:
    """A request; `expected` maps each allowed status to the code of the problem."""

    name: str
    expected: Mapping[int, str]
    method: str = "POST"
    path: str = "/transfers"
    body: bytes | None = None
    # None: a new Idempotency-Key. An empty text: none.
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def _transfer(world: World, **changes: object) -> bytes:
    return orjson.dumps(world.transfer_body(*world.payment(), 1) | changes)


_INVALID = {422: "invalid-request"}
_MALFORMED = {400: "malformed-json"}


def _invalid(name: str, **changes: object) -> Callable[[World], Attack]:
    return lambda world: Attack(name, _INVALID, body=_transfer(world, **changes))


def _malformed(name: str, body: bytes) -> Callable[[World], Attack]:
    return lambda world: Attack(name, _MALFORMED, body=body)


def _same_wallet(world: World) -> Attack:
    wallet = random.choice(world.shoppers)
    body = _transfer(world, source_wallet_id=wallet, destination_wallet_id=wallet)
    return Attack("same wallet", {422: "same-wallet"}, body=body)


def _unknown_wallet(world: World) -> Attack:
    # A valid id of the ledger that belongs to no wallet.
    wallet = f"01900000-0000-{world.shoppers[0][14:18]}-8000-{uuid4().hex[:12]}"
    body = _transfer(world, source_wallet_id=wallet)
    return Attack("unknown wallet", {404: "wallet-not-found"}, body=body)


def _other_currency(world: World) -> Attack:
    other = "EUR" if world.currency != "EUR" else "USD"
    body = _transfer(world, currency=other)
    return Attack("other currency", {422: "currency-mismatch"}, body=body)


def _invalid_cursor(world: World) -> Attack:
    path = f"/wallets/{random.choice(world.shoppers)}/statement?cursor=nonsense"
    return Attack("cursor", {400: "cursor-invalid"}, method="GET", path=path, key="")


ATTACKS: tuple[Callable[[World], Attack], ...] = (
    _invalid("negative amount", amount=-1),
    _invalid("amount 0", amount=0),
    _invalid("amount as float", amount=1.5),
    _invalid("amount as text", amount="1"),
    _invalid("amount as boolean", amount=True),
    _invalid("amount beyond 2^53", amount=2**53),
    _invalid("unknown field", fee=1),
    _invalid("malformed id", source_wallet_id="'; DROP TABLE wallets; --"),
    _invalid("malformed currency", currency="usd"),
    _invalid("U+0000", reference="a\x00b"),
    _invalid("text too long", reference="x" * 141),
    _invalid("nested metadata", metadata={"a": {"b": 1}}),
    _malformed("half a body", b'{"source_wallet_id": "'),
    _malformed("no JSON", b"amount=1"),
    _malformed("no UTF-8", b'{"reference": "\xff\xfe"}'),
    _malformed("deeply nested", b"[" * 5_000),
    lambda world: Attack("list", _INVALID, body=b"[]"),
    lambda world: Attack("empty body", {400: "malformed-json", 422: "invalid-request"}, body=b""),
    lambda world: Attack(
        "large body", {413: "body-too-large"}, body=_transfer(world, reference="x" * 40_000)
    ),
    lambda world: Attack(
        "no JSON by its type",
        {415: "unsupported-media-type"},
        body=_transfer(world),
        headers={"Content-Type": "text/plain"},
    ),
    lambda world: Attack("no key", {400: "idempotency-key-missing"}, body=_transfer(world), key=""),
    lambda world: Attack(
        "key too long", {400: "idempotency-key-invalid"}, body=_transfer(world), key="k" * 256
    ),
    lambda world: Attack("no such path", {404: "not-found"}, path="/transfer", body=b"{}"),
    lambda world: Attack("no such method", {405: "method-not-allowed"}, method="PUT", body=b"{}"),
    lambda world: Attack(
        "limit", _INVALID, method="GET", path="/transfers?wallet_id=1&limit=1000", key=""
    ),
    _same_wallet,
    _unknown_wallet,
    _other_currency,
    _invalid_cursor,
)

WRONG_KEYS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("no API key", {"Authorization": ""}),
    ("no token", {"Authorization": "Basic dXNlcjpwYXNz"}),
    ("unknown token", {"Authorization": "Bearer td_unknown_" + "0" * 43}),
)


def wrong_key(world: World) -> Attack:
    """A valid transfer with a wrong API key, for services that require API keys."""
    name, headers = random.choice(WRONG_KEYS)
    return Attack(name, {401: "unauthenticated"}, body=_transfer(world), headers=headers)


def complaint_about(attack: Attack, answer: Answer) -> tuple[str, str] | None:
    """The kind of violation and a sentence, if the answer is not allowed."""
    what = f"{attack.name}: {answer.status} {answer.code}"
    if answer.status < 300:
        return BAD_REQUEST_TAKEN, what
    if answer.status == 500:
        return SERVER_ERROR_ON_BAD_REQUEST, what
    if attack.expected.get(answer.status) != answer.code:
        return WRONG_ANSWER, f"{what}, expected {dict(attack.expected)}"
    return None
