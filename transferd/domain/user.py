"""Users: whoever owns wallets."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class CreateUser:
    """Command. `metadata` is a JSON object as text, kept byte for byte."""

    id: str
    name: str | None
    metadata: str


@dataclass(frozen=True, slots=True)
class User:
    """A user as stored."""

    id: str
    name: str | None
    metadata: str
    created_at: datetime
