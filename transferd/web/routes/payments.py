"""What transfers and holds share at the edge."""

from collections.abc import Iterable

from transferd.domain.api_key import ADMIN
from transferd.domain.book import Book
from transferd.domain.command import Command, named_holds, touched_wallets
from transferd.domain.hold import Capture, Hold
from transferd.ledger.store.holds import holds_now
from transferd.ledger.store.wallets import read_wallets_and_clock
from transferd.web.calls import Call
from transferd.web.fields import metadata_text
from transferd.web.fingerprints import metadata_part
from transferd.web.hold_schemas import NewCapture

MOVING_REFUSALS = (
    "wallet-not-found",
    "currency-mismatch",
    "wallet-frozen",
    "wallet-closed",
    "insufficient-funds",
    "balance-out-of-range",
)


def require_admin_for_funding(call: Call, wallet_ids: Iterable[str]) -> None:
    """Raise Problem unless the client may use these wallets: a payment from a funding wallet
    creates money."""
    if not call.ledger.funding_wallet_ids.isdisjoint(wallet_ids):
        call.principal.require(ADMIN)


def capture_of(call: Call, hold_id: str, hold: Hold | None, body: NewCapture) -> Capture:
    """The command of a capture, alone or in a batch."""
    return Capture(
        id=call.new_id(),
        hold_id=hold_id,
        hold=hold,
        amount_minor=body.amount,
        is_final=body.final,
        destination_wallet_id=body.destination_wallet_id,
        reference=body.reference,
        metadata=metadata_text(body.metadata),
    )


def capture_parts(body: NewCapture, command: Capture) -> tuple[object, ...]:
    """All that the command asks for, as parts of a fingerprint."""
    return (
        command.hold_id,
        command.amount_minor,
        command.is_final,
        command.destination_wallet_id,
        command.reference,
        metadata_part(body.metadata, command.metadata),
    )


async def committed_book(call: Call, command: Command) -> Book:
    """What a dry run is decided on: wallets and holds as they are now, without locks."""
    database = call.ledger.database
    wallets, now = await read_wallets_and_clock(database, touched_wallets(command))
    ids = list(named_holds(command))
    holds = await holds_now(database, ids) if ids else {}
    # The earliest time that a change could have now; a dry run has no time of its own.
    at = max([now, *(wallet.updated_at for wallet in wallets.values())])
    return Book(at, wallets, holds=holds)
