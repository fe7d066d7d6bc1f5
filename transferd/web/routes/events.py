"""The event stream of a wallet."""

import re

from transferd.domain.money import BALANCE_MINOR_MAX
from transferd.ledger.store.wallets import read_wallets
from transferd.web.calls import Call, invalid
from transferd.web.event_stream import EventStream, StreamHead
from transferd.web.operations import Operation
from transferd.web.replies import Reply
from transferd.web.request_headers import only_line
from transferd.web.routes.wallets import version_not_reached, wallet_id_of, wallet_not_found
from transferd.web.streams import EVENT_STREAM

# At most 19 digits: Python refuses to parse very long numbers.
_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")


async def follow(call: Call) -> Reply:
    """GET /wallets/{id}/events."""
    last = _last_event_id(call)
    id = wallet_id_of(call)
    wallet = (await read_wallets(call.ledger.database, [id])).get(id)
    if wallet is None:
        raise wallet_not_found(call)
    if last is not None and last > wallet.version:
        # The stream would be silent until the wallet reaches that version.
        raise version_not_reached(wallet.version, last)
    request = call.request
    if request.method == "HEAD":
        return StreamHead()
    watch = call.context.streams.open(
        call.ledger,
        id,
        sent=wallet.version if last is None else last,
        latest=wallet.version,
        is_gone=request.writer.is_gone,
    )
    return EventStream(watch, call.context.limits)


def _last_event_id(call: Call) -> int | None:
    """The version to resume after; None starts at the current version. Raises Problem."""
    text = only_line(call.request.headers, "Last-Event-ID")
    if text is None:
        return None
    if _VERSION.fullmatch(text) is None or int(text) > BALANCE_MINOR_MAX:
        raise invalid("/Last-Event-ID", "version_parsing", "must be the id of an event")
    return int(text)


OPERATIONS = (
    Operation(
        "GET",
        "/wallets/{id}/events",
        "follow_wallet",
        follow,
        "Follow a wallet: server-sent events, each with the version that it led to",
        None,
        "wallets",
        scope="wallets:read",
        media_type=EVENT_STREAM,
        refusals=("wallet-not-found", "version-not-reached", "overloaded", "draining"),
    ),
)
