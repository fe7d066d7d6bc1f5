"""Currencies and their funding wallets."""

import orjson

from transferd.web import schemas
from transferd.web.calls import Call
from transferd.web.operations import Operation, shown
from transferd.web.rendering import currency_view
from transferd.web.replies import Reply


async def list_(call: Call) -> Reply:
    """GET /currencies: all of them, in one page."""
    data = [currency_view(currency) for currency in call.ledger.currencies.values()]
    return shown(orjson.dumps({"data": data, "has_more": False, "next_cursor": None}))


OPERATIONS = (
    Operation(
        "GET",
        "/currencies",
        "list_currencies",
        list_,
        "List currencies with their minor-unit exponents and funding wallets",
        schemas.Currency,
        "wallets",
        scope="wallets:read",
        is_list=True,
    ),
)
