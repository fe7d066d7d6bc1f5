"""Users: the owners of wallets."""

from datetime import datetime
from typing import NamedTuple


class CreateUser(NamedTuple):
    """Command: create a user. `metadata` is a JSON object as text, stored byte for byte."""

    id: str
    name: str | None
    metadata: str


class User(NamedTuple):
    """A user as stored."""

    id: str
    name: str | None
    metadata: str
    created_at: datetime
