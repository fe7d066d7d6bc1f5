"""Money never appears or vanishes, at any size."""

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import (
    AMOUNT_MAX,
    BALANCE_MAX,
    BALANCE_MIN,
    footprint,
    set_balance,
)
from tests.support.truth import faults_in


async def sums(database: Database) -> dict[str, int]:
    """What all wallets of a currency have together, of those that have something."""
    rows = await database.fetch(
        "SELECT currency, sum(balance)::bigint AS sum FROM ledger_00.wallets"
        " GROUP BY currency HAVING bool_or(balance <> 0)"
    )
    return {row["currency"]: row["sum"] for row in rows}


async def test_the_balances_of_a_currency_add_up_to_zero(api: Api, database: Database) -> None:
    dollars = [await api.wallet(1_000), await api.wallet(overdraft_limit=500), await api.wallet()]
    yen = [await api.wallet(77, currency="JPY"), await api.wallet(currency="JPY")]
    assert await sums(database) == {"USD": 0, "JPY": 0}
    sent = await api.transfer(dollars[0], dollars[2], 300)
    await api.transfer(dollars[1], dollars[2], 450)
    await api.transfer(yen[0], yen[1], 77, currency="JPY")
    await api.post(f"/transfers/{sent.json['id']}/reversal", {"amount": 120}, key="back")
    await api.transfer(dollars[2], await api.funding_wallet(), 200)
    assert (await api.transfer(dollars[0], yen[0], 1)).code == "currency-mismatch"
    assert await sums(database) == {"USD": 0, "JPY": 0}
    assert [await api.balance(id) for id in dollars + yen] == [820, -450, 430, 0, 77]
    assert await api.balance(await api.funding_wallet()) == -800
    assert await faults_in(database) == []


async def test_an_initial_balance_is_a_transfer_from_the_funding_wallet(
    api: Api, database: Database
) -> None:
    funding = await api.funding_wallet("EUR")
    assert await api.balance(funding) == 0
    ada = await api.wallet(500, currency="EUR")
    assert await api.balance(funding) == -500
    [entry] = (await api.get(f"/wallets/{ada}/statement")).json["data"]
    assert (entry["kind"], entry["amount"], entry["balance_after"]) == ("transfer", 500, 500)
    assert (entry["version"], entry["counterparty_wallet_id"]) == (1, funding)
    [other] = (await api.get(f"/wallets/{funding}/statement")).json["data"]
    assert (other["transfer_id"], other["amount"]) == (entry["transfer_id"], -500)
    assert (other["balance_after"], other["counterparty_wallet_id"]) == (-500, ada)
    transfer = (await api.get(f"/transfers/{entry['transfer_id']}")).json
    assert (transfer["source_wallet_id"], transfer["destination_wallet_id"]) == (funding, ada)
    assert (transfer["amount"], transfer["currency"]) == (500, "EUR")
    assert await faults_in(database) == []


async def test_deposits_and_withdrawals_are_transfers(api: Api) -> None:
    funding, ada = await api.funding_wallet(), await api.wallet()
    deposit = await api.transfer(funding, ada, 100)
    assert (deposit.status, deposit.json["source_balance_after"]) == (201, -100)
    withdrawal = await api.transfer(ada, funding, 40)
    assert (withdrawal.status, withdrawal.json["source_balance_after"]) == (201, 60)
    assert await api.balance(funding) == -60
    assert (await api.transfer(ada, funding, 61)).code == "insufficient-funds"


async def test_a_funding_wallet_may_hold_more_than_was_paid_out(api: Api) -> None:
    # A client that may overdraw a funding wallet may also pay into it.
    funding, ada = await api.funding_wallet(), await api.wallet(overdraft_limit=100)
    assert (await api.transfer(ada, funding, 100)).status == 201
    shown = (await api.get(f"/wallets/{funding}")).json
    assert (shown["balance"], shown["available"], shown["overdraft_limit"]) == (100, None, 0)


async def test_an_overdraft_ends_at_its_limit(api: Api) -> None:
    ada, bob = await api.wallet(10, overdraft_limit=50), await api.wallet()
    assert (await api.get(f"/wallets/{ada}")).json["available"] == 60
    assert (await api.transfer(ada, bob, 45)).json["source_balance_after"] == -35
    refused = await api.transfer(ada, bob, 16)
    assert refused.code == "insufficient-funds"
    assert (refused.json["available"], refused.json["shortfall"]) == (15, 1)
    assert (await api.transfer(ada, bob, 15)).json["source_balance_after"] == -50
    assert (await api.get(f"/wallets/{ada}")).json["available"] == 0
    await api.patch(f"/wallets/{ada}", {"overdraft_limit": 51})
    assert (await api.transfer(ada, bob, 1)).json["source_balance_after"] == -51
    await api.transfer(bob, ada, 61)
    assert await api.balance(ada) == 10


def assert_out_of_range(reply: Reply) -> None:
    """422 `balance-out-of-range`."""
    assert (reply.status, reply.code) == (422, "balance-out-of-range")


async def test_a_balance_can_be_the_largest_integer_and_no_larger(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(100, overdraft_limit=AMOUNT_MAX), await api.wallet()
    await set_balance(database, bob, BALANCE_MAX - 5)
    before = await footprint(database)
    for amount in (6, AMOUNT_MAX):
        assert_out_of_range(await api.transfer(ada, bob, amount, key=f"too much: {amount}"))
    assert await footprint(database) == before | {"outcomes": before["outcomes"] + 2}
    assert (await api.transfer(ada, bob, 5)).status == 201
    # The exact digits, which no float could keep.
    shown = await api.get(f"/wallets/{bob}")
    assert b'"balance":9223372036854775807,' in shown.body
    assert_out_of_range(await api.transfer(ada, bob, 1))
    [entry, *_] = (await api.get(f"/wallets/{bob}/statement")).json["data"]
    assert entry["balance_after"] == BALANCE_MAX
    assert (await api.transfer(bob, ada, AMOUNT_MAX)).status == 201
    assert await api.balance(bob) == BALANCE_MAX - AMOUNT_MAX


async def test_a_full_wallet_with_an_overdraft_is_shown_exactly(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(), await api.wallet()
    await set_balance(database, ada, BALANCE_MAX)
    changed = await api.patch(f"/wallets/{ada}", {"overdraft_limit": AMOUNT_MAX})
    assert changed.status == 200
    # More than a signed integer of 64 bits holds.
    assert changed.json["available"] == BALANCE_MAX + AMOUNT_MAX
    assert (await api.get(f"/wallets/{ada}")).body == changed.body
    made = await api.transfer(ada, bob, AMOUNT_MAX)
    assert made.json["source_balance_after"] == BALANCE_MAX - AMOUNT_MAX


async def test_a_funding_wallet_can_have_the_smallest_integer_and_no_smaller(
    api: Api, database: Database
) -> None:
    funding, ada, user = await api.funding_wallet(), await api.wallet(), await api.user()
    await set_balance(database, funding, BALANCE_MIN + 5)
    before = await footprint(database)
    wallet: dict[str, object] = {"user_id": user, "currency": "USD"}
    assert_out_of_range(await api.transfer(funding, ada, 6, key="transfer"))
    assert_out_of_range(await api.post("/wallets", wallet | {"initial_balance": 6}, key="wallet"))
    assert await footprint(database) == before | {"outcomes": before["outcomes"] + 2}
    made = await api.post("/wallets", wallet | {"initial_balance": 4}, key="small wallet")
    assert made.status == 201
    last = await api.transfer(funding, ada, 1)
    assert last.json["source_balance_after"] == BALANCE_MIN
    assert b'"balance":-9223372036854775808,' in (await api.get(f"/wallets/{funding}")).body
    assert_out_of_range(await api.transfer(funding, ada, 1))
    assert (await api.transfer(ada, funding, 1)).status == 201


async def test_an_overdraft_never_leads_below_the_smallest_integer(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(overdraft_limit=AMOUNT_MAX), await api.wallet()
    assert (await api.transfer(ada, bob, AMOUNT_MAX)).json["source_balance_after"] == -AMOUNT_MAX
    refused = await api.transfer(ada, bob, 1)
    assert (refused.json["available"], refused.json["shortfall"]) == (0, 1)
    back = await api.transfer(bob, ada, AMOUNT_MAX)
    assert (back.status, await api.balance(ada)) == (201, 0)
    assert await faults_in(database) == []
