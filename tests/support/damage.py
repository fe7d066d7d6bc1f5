"""Requests that fill a ledger, and every kind of damage to it."""

from dataclasses import dataclass
from uuid import uuid4

from tests.support.api import Api
from tests.support.contract import transfer_body
from transferd.ledger.audit import Check


async def make_traffic(api: Api) -> None:
    """Send every kind of request that changes a ledger."""
    ada = await api.wallet(10_000, metadata={"name": "ada"})
    bob = await api.wallet(metadata={"name": "bob"}, overdraft_limit=200)
    carl = await api.wallet(metadata={"name": "carl"})
    await api.wallet(metadata={"name": "dave"})
    await api.wallet(1_000, currency="EUR", metadata={"name": "eve"})
    lunch = (await api.transfer(ada, bob, 2_500, key="lunch", reference="lunch")).json["id"]
    for key, amount in (("give back", 1_000), ("give back more", 500)):
        reply = await api.post(f"/transfers/{lunch}/reversal", {"amount": amount}, key=key)
        assert reply.status == 201, reply
    assert (await api.transfer(ada, bob, 99_999, key="house")).code == "insufficient-funds"
    for path in (f"/wallets/{bob}/freeze", f"/wallets/{bob}/unfreeze", f"/wallets/{carl}/close"):
        assert (await api.post(path, key=path[-8:])).status == 200
    assert (await api.patch(f"/wallets/{bob}", {"overdraft_limit": 500})).status == 200
    assert (await api.transfer(ada, bob, 100, key="dinner", reference="dinner")).status == 201
    for key, amount in (("room", 300), ("deposit", 200)):
        body = {"source_wallet_id": ada, "destination_wallet_id": bob, "amount": amount}
        more = {"currency": "USD", "expires_in_s": 86_400, "reference": key}
        hold = (await api.post("/holds", body | more, key=key)).json["id"]
        paid = {"amount": 50, "final": key == "deposit"}
        assert (await api.post(f"/holds/{hold}/capture", paid, key=f"{key} 2")).status == 201
    wages = [transfer_body(ada, bob, amount, reference="wages") for amount in (10, 99_999, 20)]
    body = {"mode": "independent", "transfers": wages}
    assert (await api.post("/transfers/batch", body, key="payday")).status == 200


@dataclass(frozen=True)
class Damage:
    """A change of a correct ledger that the audit must find.

    `harm` is the statement; it runs as superuser and returns the subject of the finding. `also`
    are other checks that fail. `unguarded` is the constraint to drop first, as (table, name).
    """

    check: Check
    harm: str
    also: frozenset[Check] = frozenset()
    unguarded: tuple[str, str] | None = None


def damage(check: Check, harm: str, *also: Check, unguarded: str = "") -> Damage:
    table, _, constraint = unguarded.partition(" ")
    return Damage(check, harm, frozenset(also), (table, constraint) if unguarded else None)


def wallet_named(name: str) -> str:
    return f"(SELECT id FROM ledger_00.wallets WHERE metadata ->> 'name' = '{name}')"


def set_wallet(name: str, what: str) -> str:
    return f"UPDATE ledger_00.wallets SET {what} WHERE id = {wallet_named(name)} RETURNING id::text"


def set_funding(code: str, what: str, subject: str = "currency") -> str:
    return (
        f"UPDATE ledger_00.wallets SET {what} WHERE id = (SELECT funding_wallet_id"
        f" FROM ledger_00.currencies WHERE code = '{code}') RETURNING {subject}"
    )


def set_transfer(reference: str, what: str, subject: str = "id::text") -> str:
    # A reversal has the reference of its original.
    return (
        f"UPDATE ledger_00.transfers SET {what} WHERE reference = '{reference}' AND kind = 0"
        f" RETURNING {subject}"
    )


def set_reversal(amount: int, what: str, subject: str = "id::text") -> str:
    return (
        f"UPDATE ledger_00.transfers SET {what} WHERE kind = 1 AND amount = {amount}"
        f" RETURNING {subject}"
    )


def set_outcome(key: str, what: str) -> str:
    return (
        f"UPDATE ledger_00.outcomes SET {what} WHERE key = '{key}'"
        " RETURNING 'client ' || client_id::text || ', key ' || key"
    )


def set_hold(reference: str, what: str, subject: str = "id::text") -> str:
    return f"UPDATE ledger_00.holds SET {what} WHERE reference = '{reference}' RETURNING {subject}"


BOB = f"{wallet_named('bob')}::text"
STRANGER = str(uuid4())
SUM, CHAIN, SETTINGS = Check.CURRENCY_SUM, Check.BALANCE_CHAIN, Check.WALLET_SETTINGS
HELD, HELD_HISTORY, HOLD = Check.HELD_SUM, Check.HELD_HISTORY, Check.HOLD_HISTORY

DAMAGES = {
    "a balance that is too high": damage(
        SUM, set_wallet("bob", "balance = balance + 1").replace("id::text", "currency"), CHAIN
    ),
    "a currency without a funding wallet": damage(
        Check.FUNDING_WALLET,
        f"UPDATE ledger_00.currencies SET funding_wallet_id = '{STRANGER}' WHERE code = 'JPY'"
        " RETURNING code",
    ),
    "a funding wallet with an owner": damage(
        Check.FUNDING_WALLET, set_funding("JPY", f"funding = false, user_id = '{STRANGER}'")
    ),
    "a funding wallet of another currency": damage(
        Check.FUNDING_WALLET, set_funding("JPY", "currency = 'EUR'", "'JPY'")
    ),
    "a frozen funding wallet": damage(
        Check.FUNDING_WALLET, set_funding("JPY", "status = 1"), SETTINGS
    ),
    "an ordinary wallet that is marked as funding": damage(
        Check.FUNDING_WALLET, set_wallet("bob", "funding = true, user_id = NULL")
    ),
    "an unknown currency": damage(
        Check.FUNDING_WALLET,
        set_wallet("dave", "currency = 'ZZZ'").replace("id::text", "currency"),
    ),
    "a lost wallet": damage(
        Check.ORPHAN,
        f"DELETE FROM ledger_00.wallets WHERE id = {wallet_named('dave')} RETURNING id::text",
    ),
    "a lost transfer": damage(
        Check.VERSIONS,
        "DELETE FROM ledger_00.transfers WHERE reference = 'initial balance' AND amount = 10000"
        " RETURNING destination_wallet_id::text",
    ),
    "a lost freeze": damage(
        Check.VERSIONS,
        "DELETE FROM ledger_00.wallet_changes WHERE kind = 1 RETURNING wallet_id::text",
    ),
    "a lost creation": damage(
        Check.VERSIONS,
        f"DELETE FROM ledger_00.wallet_changes WHERE version = 0 AND wallet_id ="
        f" {wallet_named('dave')} RETURNING wallet_id::text",
        SETTINGS,
    ),
    "a duplicate version": damage(
        Check.VERSIONS,
        "INSERT INTO ledger_00.wallet_changes SELECT source_wallet_id, source_version, created_at,"
        " source_balance_after, 0, 4, 0 FROM ledger_00.transfers WHERE reference = 'dinner'"
        " RETURNING wallet_id::text",
    ),
    "a version without history": damage(
        Check.VERSIONS, set_wallet("dave", "version = version + 1")
    ),
    "a forged amount": damage(
        CHAIN, set_transfer("dinner", "amount = 101", "source_wallet_id::text")
    ),
    "a forged balance in between": damage(
        CHAIN,
        set_transfer("lunch", "destination_balance_after = 2^62", "destination_wallet_id::text"),
    ),
    "a first balance that is not zero": damage(
        CHAIN,
        f"UPDATE ledger_00.wallet_changes SET balance_after = 5 WHERE version = 0 AND wallet_id ="
        f" {wallet_named('ada')} RETURNING wallet_id::text",
    ),
    "a transfer that is older than the previous version": damage(
        Check.TIMES,
        set_transfer("dinner", "created_at = '2000-01-01Z'", "source_wallet_id::text"),
    ),
    "an updated_at without a change": damage(
        Check.TIMES, set_wallet("dave", "updated_at = '2100-01-01Z'")
    ),
    "a wallet below its limit": damage(
        Check.WALLET_LIMIT,
        set_wallet("ada", "held = 20000"),
        HELD,
        HELD_HISTORY,
        unguarded="ledger_00.wallets wallets_check1",
    ),
    "a negative amount held": damage(
        Check.WALLET_LIMIT,
        set_wallet("ada", "held = -1"),
        HELD,
        HELD_HISTORY,
        unguarded="ledger_00.wallets wallets_held_check",
    ),
    "money in a closed wallet": damage(
        Check.CLOSED_WALLET,
        set_wallet("ada", "status = 2"),
        SETTINGS,
        unguarded="ledger_00.wallets wallets_check2",
    ),
    "a limit without its change": damage(SETTINGS, set_wallet("bob", "overdraft_limit = 501")),
    "a freeze without its change": damage(SETTINGS, set_wallet("bob", "status = 1")),
    "a transfer to an unknown wallet": damage(
        Check.TRANSFER_WALLETS,
        set_transfer("dinner", f"destination_wallet_id = '{STRANGER}'"),
        Check.VERSIONS,
    ),
    "a transfer in another currency": damage(
        Check.TRANSFER_CURRENCY, set_transfer("dinner", "currency = 'EUR'")
    ),
    "a reversal of nothing": damage(
        Check.REVERSAL_ORIGINAL, set_reversal(500, f"reverses_transfer_id = '{STRANGER}'")
    ),
    "a reversal of a reversal": damage(
        Check.REVERSAL_ORIGINAL,
        set_reversal(
            500,
            "reverses_transfer_id ="
            " (SELECT id FROM ledger_00.transfers WHERE kind = 1 AND amount = 1000)",
        ),
        Check.REVERSAL_SIDES,
    ),
    "a transfer that names an original": damage(
        Check.REVERSAL_ORIGINAL,
        set_reversal(500, "kind = 0"),
        unguarded="ledger_00.transfers transfers_check1",
    ),
    "a reversal to another wallet": damage(
        Check.REVERSAL_SIDES,
        set_reversal(
            500,
            "reverses_transfer_id = (SELECT id FROM ledger_00.transfers"
            " WHERE reference = 'initial balance' AND amount = 10000)",
        ),
    ),
    "a reversal in another currency": damage(
        Check.REVERSAL_CURRENCY, set_reversal(500, "currency = 'EUR'"), Check.TRANSFER_CURRENCY
    ),
    "reversals above the original amount": damage(
        Check.REVERSAL_SUM, set_transfer("lunch", "amount = 1499"), CHAIN
    ),
    "a wallet that holds too much": damage(HELD, set_wallet("ada", "held = 251"), HELD_HISTORY),
    "a wallet that counts too many holds": damage(HELD, set_wallet("ada", "open_holds = 2")),
    "a forged amount held in the history": damage(
        HELD_HISTORY,
        "UPDATE ledger_00.wallet_changes SET held_after = 0 WHERE kind = 7 AND hold_status = 1"
        " RETURNING wallet_id::text",
    ),
    "a hold that expires before the wallet expects it": damage(
        Check.HOLD_EXPIRY,
        set_wallet("ada", "hold_expires_at = '2100-01-01Z'"),
    ),
    "a capture that is not counted": damage(
        Check.HOLD_CAPTURES, set_hold("room", "captured = 40, amount = 290"), HOLD
    ),
    "a capture of an unknown hold": damage(
        Check.HOLD_CAPTURES,
        f"UPDATE ledger_00.transfers SET hold_id = '{STRANGER}' WHERE kind = 2 AND reference ="
        " 'room' RETURNING hold_id::text",
    ),
    "a hold that does not add up": damage(
        Check.HOLD_AMOUNTS,
        set_hold("deposit", "released = 149"),
        HOLD,
        unguarded="ledger_00.holds holds_check1",
    ),
    "a hold in another currency": damage(
        Check.HOLD_WALLET, set_hold("deposit", "currency = 'EUR'"), Check.HOLD_CAPTURES
    ),
    "a hold that was revived": damage(HOLD, set_hold("deposit", "status = 0, released = 0"), HELD),
    "a success without its transfer": damage(
        Check.OUTCOME_TRANSFER, set_outcome("lunch", f"transfer_id = '{STRANGER}'")
    ),
    "a transfer that was refused": damage(
        Check.OUTCOME_TRANSFER, set_outcome("lunch", "status = 422")
    ),
    "a body that is not text": damage(Check.OUTCOME_BODY, set_outcome("house", r"body = '\xff00'")),
    "a body of one number": damage(Check.OUTCOME_BODY, set_outcome("house", "body = '422'")),
    "a body of another status": damage(Check.OUTCOME_BODY, set_outcome("house", "status = 409")),
    "a failure that was stored": damage(
        Check.OUTCOME_BODY, set_outcome("house", "status = 503, body = '{\"status\": 503}'")
    ),
    "a refusal with the status of a success": damage(
        Check.OUTCOME_BODY, set_outcome("house", "status = 201")
    ),
    "an outcome without an answer": damage(
        Check.OUTCOME_BODY,
        set_outcome("house", "body = NULL"),
        unguarded="ledger_00.outcomes outcomes_check",
    ),
    "a batch that lost a transfer": damage(
        Check.OUTCOME_TRANSFER,
        set_outcome("payday", f"body = convert_to('[\"{STRANGER}\"]', 'UTF8')"),
    ),
    "a batch that is not text": damage(
        Check.OUTCOME_BODY, set_outcome("payday", r"body = '\xff00'")
    ),
    "a batch that is not a list": damage(Check.OUTCOME_BODY, set_outcome("payday", "body = '{}'")),
    "a batch with invalid ids": damage(
        Check.OUTCOME_BODY, set_outcome("payday", "body = '[\"x\"]'")
    ),
    "an unknown version of the renderer": damage(
        Check.OUTCOME_RENDER_VERSION, set_outcome("lunch", "render_version = 99")
    ),
    "a short fingerprint": damage(
        Check.OUTCOME_FINGERPRINT,
        set_outcome("lunch", r"fingerprint = '\x00'"),
        unguarded="ledger_00.outcomes outcomes_fingerprint_check",
    ),
}
