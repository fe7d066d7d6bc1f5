"""Refusals that are used in more than one place."""

from datetime import datetime

from transferd.domain.errors import Reason, Refused
from transferd.domain.hold import EXPIRY_AHEAD_MAX, Hold, HoldStatus
from transferd.domain.times import rfc3339
from transferd.domain.wallet import Wallet, WalletStatus, etag_of


def wallet_not_found(wallet_id: str) -> Refused:
    """A command or a read names an unknown wallet."""
    return Refused(Reason.WALLET_NOT_FOUND, f"There is no wallet {wallet_id}.")


def same_wallet() -> Refused:
    """Source and destination are the same wallet."""
    return Refused(Reason.SAME_WALLET, "Source and destination are the same wallet.")


def currency_mismatch(source: Wallet, destination: Wallet | None, currency: str) -> Refused:
    """A wallet has another currency than the command."""
    wallets = f"The source holds {source.currency}"
    if destination is not None:
        wallets += f", the destination {destination.currency}"
    return Refused(Reason.CURRENCY_MISMATCH, f"{wallets}, the transfer is in {currency}.")


def balance_out_of_range() -> Refused:
    """A balance would not fit a bigint of PostgreSQL."""
    return Refused(
        Reason.BALANCE_OUT_OF_RANGE,
        "A balance would leave the range of a signed 64-bit integer.",
    )


def insufficient_funds(available_minor: int, shortfall_minor: int, currency: str) -> Refused:
    """The paying wallet lacks `shortfall_minor` minor units."""
    return Refused(
        Reason.INSUFFICIENT_FUNDS,
        f"{available_minor} {currency} is available, {shortfall_minor} more is needed.",
        {
            "available": available_minor,
            "shortfall": shortfall_minor,
            "currency": currency,
        },
    )


def wrong_status(wallet: Wallet) -> Refused:
    """The wallet is frozen or closed."""
    if wallet.status is WalletStatus.FROZEN:
        return Refused(Reason.WALLET_FROZEN, f"Wallet {wallet.id} is frozen and cannot pay.")
    return Refused(Reason.WALLET_CLOSED, f"Wallet {wallet.id} is closed.")


def hold_not_found(hold_id: str) -> Refused:
    """A command names an unknown hold."""
    return Refused(Reason.HOLD_NOT_FOUND, f"There is no hold {hold_id}.")


def hold_over(hold: Hold) -> Refused:
    """The hold is not active any more."""
    facts: dict[str, object] = {
        "hold_status": hold.status,
        "ended_at": rfc3339(hold.updated_at),
    }
    if hold.final_transfer_id is not None:
        facts["transfer_id"] = hold.final_transfer_id
    if hold.status is HoldStatus.EXPIRED:
        facts["expires_at"] = rfc3339(hold.expires_at)
        return Refused(
            Reason.HOLD_EXPIRED, f"The hold expired at {rfc3339(hold.expires_at)}.", facts
        )
    return Refused(Reason.HOLD_NOT_ACTIVE, f"The hold is {hold.status}.", facts)


def capture_exceeds_hold(hold: Hold) -> Refused:
    """The capture asks for more than is left of the hold."""
    return Refused(
        Reason.CAPTURE_EXCEEDS_HOLD,
        f"{hold.remaining_minor} of {hold.amount_minor} {hold.currency} is left of the hold.",
        {"remaining": hold.remaining_minor, "currency": hold.currency},
    )


def expiry_invalid(now: datetime) -> Refused:
    """The expiry of a hold is not in the future, or too far in it; `now` is the database's time."""
    return Refused(
        Reason.EXPIRY_INVALID,
        "The expiry must be after the database's time, which is `now`, and at most"
        f" {EXPIRY_AHEAD_MAX.days} days ahead.",
        {"now": rfc3339(now)},
    )


def too_many_holds(open_holds: int, open_holds_max: int) -> Refused:
    """The wallet has as many open holds as it may have."""
    return Refused(
        Reason.TOO_MANY_HOLDS,
        f"The wallet has {open_holds} open holds, and may have {open_holds_max}.",
        {"open_holds": open_holds, "open_holds_max": open_holds_max},
    )


def version_changed(wallet: Wallet) -> Refused:
    """The condition of a change (If-Match) does not include the version of the wallet."""
    return Refused(
        Reason.VERSION_CHANGED,
        f"The wallet is at version {wallet.version}, which If-Match does not name.",
        {"version": wallet.version, "etag": etag_of(wallet.version)},
    )


def key_reused() -> Refused:
    """The key was used for another request. This refusal is never stored."""
    return Refused(
        Reason.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key was used for a different request. A new key can pay twice: first look"
        " at GET /idempotency-keys/{key}, or repeat that request exactly as it was sent.",
    )
