"""API keys: their scopes, and the format of their tokens."""

import hashlib
import re
from typing import Literal, get_args

from transferd.domain.ledger import MAIN, Ledger

Scope = Literal["wallets:read", "wallets:write", "transfers:write", "webhooks:admin", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# Includes all other scopes. Only this scope can create money.
ADMIN: Scope = "admin"

_TOKEN = re.compile(r"td_([0-9A-Za-z]{1,64})_[0-9A-Za-z_-]{16,128}")


def token_of(id: str, secret: str) -> str:
    """The token that a client sends: `td_<id>_<secret>`."""
    return f"td_{id}_{secret}"


def id_in(token: str) -> str | None:
    """The public id in a token; None if the text is not a token."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def digest_of(token: str, ledger: Ledger) -> bytes:
    """The digest under which a token of a client of the ledger is stored.

    SHA-256 without a salt is enough for a secret of 256 random bits. Versions without ledgers
    compare with the digest of main, so they refuse the clients of all other ledgers.
    """
    text = token if ledger.number == MAIN.number else f"{ledger.number}:{token}"
    return hashlib.sha256(text.encode()).digest()
