"""Refusals that are used in more than one place."""

from transferd.domain.errors import Reason, Refused
from transferd.domain.wallet import Wallet, WalletStatus, etag_of


def wallet_not_found(wallet_id: str) -> Refused:
    """A command or a read names an unknown wallet."""
    return Refused(Reason.WALLET_NOT_FOUND, f"There is no wallet {wallet_id}.")


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
