"""An event that is delivered: a CloudEvent, and the wallets that it is about."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from transferd.domain.ledger import MAIN

# Which members of an event's data are wallets, by the first word of its type.
_SIDES = ("source_wallet_id", "destination_wallet_id")
_WALLETS_OF = {"transfer": _SIDES, "hold": _SIDES, "wallet": ("id",)}
_TEXT_MAX = 200


class Unreadable(Exception):
    """This is not an event; the message says why, in one line."""


class Event(NamedTuple):
    """A CloudEvent. `wallets` are in the order of its members, each once."""

    id: str
    type: str
    time: datetime
    wallets: tuple[str, ...]
    traceparent: str | None
    json: dict[str, Any]
    # Events of the version before do not name their ledger, which was main.
    ledger: str = MAIN.name

    @classmethod
    def read(cls, body: bytes | str) -> "Event":
        """From JSON. Raises Unreadable."""
        try:
            return cls._read(orjson.loads(body))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unreadable(f"not an event: {type(error).__name__}: {error}") from error

    @classmethod
    def _read(cls, event: dict[str, Any]) -> "Event":
        id, type, traceparent = event["id"], event["type"], event.get("traceparent")
        wallets = wallets_of(type, event["data"])
        time = datetime.fromisoformat(event["time"])
        for text in (id, type, *wallets, "" if traceparent is None else traceparent):
            if not isinstance(text, str) or len(text) > _TEXT_MAX or not text.isprintable():
                raise ValueError("an id, a type or a wallet is not short printable text")
        if time.tzinfo is None:
            raise ValueError("the time has no offset")
        return cls(id, type, time, wallets, traceparent, event, event.get("ledger", MAIN.name))

    @classmethod
    def unreadable(cls, id: str) -> "Event":
        """A substitute for an event that cannot be read."""
        return cls(id, "unreadable", datetime.now(UTC), (), None, {"id": id, "type": "unreadable"})


def wallets_of(event_type: str, data: Mapping[str, Any]) -> tuple[str, ...]:
    """The wallets that an event is about; an event of one wallet twice names it once."""
    names = _WALLETS_OF.get(event_type.partition(".")[0], ())
    # A hold need not have a destination.
    return tuple(dict.fromkeys(data[name] for name in names if data[name] is not None))
