"""Refusals that more than one decision gives."""

from transferd.domain.errors import Reason, Refused
from transferd.domain.wallet import Wallet, WalletStatus, etag_of


def wallet_not_found(wallet_id: str) -> Refused:
    """The refusal of every command and read that names an unknown wallet."""
    return Refused(Reason.WALLET_NOT_FOUND, f"There is no wallet {wallet_id}.")


def insufficient_funds(available_minor: int, shortfall_minor: int, currency: str) -> Refused:
    """The refusal that says how much is missing, in minor units."""
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
    """The refusal of a wallet that is frozen or closed."""
    if wallet.status is WalletStatus.FROZEN:
        return Refused(Reason.WALLET_FROZEN, f"Wallet {wallet.id} is frozen and cannot pay.")
    return Refused(Reason.WALLET_CLOSED, f"Wallet {wallet.id} is closed.")


def version_changed(wallet: Wallet) -> Refused:
    """The refusal of a change that was asked for at another version of the wallet."""
    return Refused(
        Reason.VERSION_CHANGED,
        f"The wallet is at version {wallet.version}, which If-Match does not name.",
        {"version": wallet.version, "etag": etag_of(wallet.version)},
    )


def key_reused() -> Refused:
    """A key that was used for another request. This refusal is never stored."""
    return Refused(
        Reason.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key was used for a different request. A new key can pay twice: first look"
        " at GET /idempotency-keys/{key}, or repeat that request exactly as it was sent.",
    )
