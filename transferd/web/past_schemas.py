"""Queries about the past of a wallet, and their answers."""

from typing import Annotated

from pydantic import Field, RootModel

from transferd.web.fields import (
    InDigits,
    QueryTime,
    Version,
)
from transferd.web.schemas import ListQuery, PastWallet, Query, Wallet

_NOT_REACHED = (
    " An instant that the database's clock has not reached is 422 `invalid-request`; `now` is the"
    " time of that clock."
)
_DIGITS = " Microseconds count; further digits are cut off."
_Version = Annotated[Version, InDigits]


class StatementQuery(ListQuery):
    """GET /wallets/{id}/statement: entries that meet every condition that is given."""

    from_: Annotated[
        QueryTime | None,
        Field(
            alias="from",
            description="Only entries of this instant or later. Windows that meet, each with the"
            " `to` of the one before as its `from`, lose and repeat nothing; the balance `at`"
            f" `from` and their entries give the balance `at` `to`.{_DIGITS}",
        ),
    ] = None
    to: Annotated[
        QueryTime | None,
        Field(
            description="Only entries before this instant. The answer is never different later."
            f"{_NOT_REACHED}{_DIGITS}"
        ),
    ] = None
    after_version: Annotated[
        _Version | None,
        Field(
            description="Only entries with a greater version. To follow a wallet, read all pages,"
            " and go on after the greatest version seen: this loses and repeats nothing. Beyond the"
            " wallet's own version it is 412 `version-not-reached`. With `from` and `to` as well,"
            " an entry has to meet all conditions."
        ),
    ] = None


class WalletQuery(Query):
    """GET /wallets/{id}."""

    min_version: Annotated[
        _Version | None,
        Field(description="Not an older version than this: else 412 `version-not-reached`."),
    ] = None
    at: Annotated[
        QueryTime | None,
        Field(
            description="The wallet with everything before this instant, a `PastWallet`. The answer"
            " is never different later. Before the wallet's creation, and at the instant of it, 404"
            f" `wallet-not-found`.{_NOT_REACHED}{_DIGITS} Not to be combined with `min_version`."
        ),
    ] = None


class WalletAnswer(RootModel[Wallet | PastWallet]):
    """The wallet of now or, with `at`, the wallet before that instant."""
