"""API keys: what they may be good for, and how a token is read."""

import hashlib
import re
from typing import Literal, get_args

Scope = Literal["wallets:read", "wallets:write", "transfers:write", "webhooks:admin", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# Includes all the others, and is the only one that makes money.
ADMIN: Scope = "admin"

_TOKEN = re.compile(r"td_([0-9A-Za-z]{1,64})_[0-9A-Za-z_-]{16,128}")


def token_of(id: str, secret: str) -> str:
    """What a client sends: `td_<id>_<secret>`."""
    return f"td_{id}_{secret}"


def id_in(token: str) -> str | None:
    """The public part of a token; None if it is none."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def digest_of(token: str) -> bytes:
    """What is stored of a token. SHA-256 is enough: 256 random bits are never guessed."""
    return hashlib.sha256(token.encode()).digest()
