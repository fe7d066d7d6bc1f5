"""Wallets: create, read (from the cache), list, change, statement."""

from datetime import datetime, timedelta

from transferd.cache.wallets import Snapshot
from transferd.domain.api_key import ADMIN
from transferd.domain.money import BALANCE_MINOR_MAX
from transferd.domain.times import rfc3339
from transferd.domain.wallet import (
    ChangeKind,
    CreateWallet,
    SetStatus,
    UpdateWallet,
    Wallet,
    etag_of,
)
from transferd.ledger.past import InstantNotReached
from transferd.ledger.store import statements
from transferd.ledger.store import wallets as store
from transferd.observability.facts import WalletRead
from transferd.web import cursors, schemas
from transferd.web.calls import Call, invalid
from transferd.web.fields import is_id, metadata_text
from transferd.web.fingerprints import fingerprint_of, metadata_part
from transferd.web.operations import BY_ID, Handler, Operation, answered, listed, shown
from transferd.web.past_schemas import StatementQuery, WalletAnswer, WalletQuery
from transferd.web.problems import Problem
from transferd.web.rendering import entry_view, wallet_view
from transferd.web.replies import Reply
from transferd.web.request_headers import is_known, versions_allowed

_LIST = "wallets"
_STATEMENT = "statement"


async def create(call: Call) -> Reply:
    """POST /wallets."""
    body = await call.body(schemas.NewWallet)
    currency = call.ledger.currencies.get(body.currency)
    if currency is None:
        raise invalid(
            "/currency", "currency_unknown", "must be an ISO 4217 currency with minor units"
        )
    if body.initial_balance or body.overdraft_limit:
        call.principal.require(ADMIN)
    key = call.key(required=body.initial_balance > 0)
    metadata = metadata_text(body.metadata)
    command = CreateWallet(
        id=call.new_id(),
        user_id=body.user_id,
        currency=body.currency,
        overdraft_limit_minor=body.overdraft_limit,
        metadata=metadata,
        initial_minor=body.initial_balance,
        funding_wallet_id=currency.funding_wallet_id,
        transfer_id=call.new_id(),
    )
    answer = await call.ask(
        command,
        key=key,
        fingerprint=fingerprint_of(
            "wallets",
            body.user_id,
            body.currency,
            body.initial_balance,
            body.overdraft_limit,
            metadata_part(body.metadata, metadata),
        ),
    )
    return answered(answer, location="/wallets/")


async def read(call: Call) -> Reply:
    """GET /wallets/{id}."""
    query = call.query(WalletQuery)
    id = wallet_id_of(call)
    if query.at is not None and query.min_version is not None:
        raise invalid("/min_version", "conflict", "cannot be combined with at")
    if query.at is not None:
        return await _read_before(call, id, query.at)
    min_version = query.min_version or 0
    snapshot = await call.ledger.wallets.get(id)
    cache, is_due = "hit", False
    if snapshot is None or snapshot.version < min_version:
        cache = "miss" if call.context.link.is_available else "bypass"
        snapshot, is_due = await _read_through(call, id)
    call.context.facts.emit(WalletRead(cache))
    if snapshot.version < min_version:
        raise version_not_reached(snapshot.version, min_version)
    if is_due:
        # The wallet has changed with the time, and its version has not: no ETag can name it.
        return shown(snapshot.body, **{"X-Cache": cache})
    # Clients may store the answer and must revalidate it, with If-None-Match.
    caching = "private, no-cache"
    headers = {"ETag": etag_of(snapshot.version), "X-Cache": cache, "Cache-Control": caching}
    if is_known(call.request, headers["ETag"]):
        return Reply(304, media_type=None, extra=headers)
    return shown(snapshot.body, **headers)


async def _read_through(call: Call, id: str) -> tuple[Snapshot, bool]:
    """Read from PostgreSQL and fill the cache; also whether a hold of the wallet is due."""
    wallets, clock = call.ledger.wallets, call.context.clock
    reservation = await wallets.reserve(id)
    asked_at = clock()
    found = await store.read_wallet_and_clock(call.ledger.database, id)
    if found is None:
        raise wallet_not_found(call)
    wallet, now = found
    snapshot = Snapshot(id, wallet.version, call.context.rendering.wallet(wallet))
    if wallets.is_storable(wallet.hold_expires_at, now + timedelta(seconds=clock() - asked_at)):
        await wallets.fill(snapshot, reservation)
    return snapshot, wallet.hold_expires_at is not None and wallet.hold_expires_at <= now


async def _read_before(call: Call, id: str, instant: datetime) -> Reply:
    try:
        wallet = await call.ledger.past.wallet_before(id, instant)
    except InstantNotReached as error:
        raise _not_reached("at", error.now) from None
    if wallet is None:
        raise wallet_not_found(call)
    call.context.facts.emit(WalletRead("bypass"))
    return shown(call.context.rendering.past_wallet(wallet), **{"X-Cache": "bypass"})


def _not_reached(name: str, now: datetime) -> Problem:
    """The problem of an instant in the future; `now` is the database's time."""
    return invalid(
        f"/{name}",
        "in_the_future",
        "must not be in the future: the database's time is `now`",
        now=rfc3339(now),
    )


def version_not_reached(version: int, wanted: int) -> Problem:
    """The problem of a position that the wallet has not reached yet."""
    return Problem(
        "version-not-reached",
        f"The wallet is at version {version}, not yet at {wanted}.",
        facts={"version": version},
    )


async def list_(call: Call) -> Reply:
    """GET /wallets."""
    query = call.query(schemas.WalletsQuery)
    scope = cursors.scope_of(call.principal.ledger, _LIST, query)
    wallets = await store.list_wallets(
        call.ledger.database,
        user_id=query.user_id,
        currency=query.currency,
        before_id=cursors.decode_id(scope, query.cursor),
        limit=query.limit + 1,
    )
    items = [wallet_view(wallet) for wallet in wallets]
    return listed(call, scope, query.limit, items, [wallet.id for wallet in wallets])


async def update(call: Call) -> Reply:
    """PATCH /wallets/{id}."""
    id = wallet_id_of(call)
    body = await call.body(schemas.WalletPatch)
    given = body.model_fields_set
    if "overdraft_limit" in given or id in call.ledger.funding_wallet_ids:
        call.principal.require(ADMIN)
    if "overdraft_limit" in given:
        _refuse_funding(call, id)
    command = UpdateWallet(
        id,
        body.overdraft_limit if "overdraft_limit" in given else None,
        metadata_text(body.metadata) if "metadata" in given else None,
        versions_allowed(call.request),
    )
    return answered(await call.ask(command, key=None))


def _set_status(kind: ChangeKind) -> Handler:
    async def set_status(call: Call) -> Reply:
        id = wallet_id_of(call)
        await call.optional_body(schemas.NoBody)
        key = call.key(required=False)
        _refuse_funding(call, id)
        answer = await call.ask(
            SetStatus(id, kind, versions_allowed(call.request)),
            key=key,
            fingerprint=fingerprint_of(kind, id),
        )
        return answered(answer)

    return set_status


async def statement(call: Call) -> Reply:
    """GET /wallets/{id}/statement."""
    query = call.query(StatementQuery)
    id = wallet_id_of(call)
    database = call.ledger.database
    wallet = await _settled(call, id, query.to)
    after_version = query.after_version or 0
    if after_version > wallet.version:
        raise version_not_reached(wallet.version, after_version)
    to_version = wallet.version
    if query.to is not None:
        to_version = await store.version_before(database, id, query.to) or 0
    if query.from_ is not None:
        # `from` needs no settling: uncommitted changes come after all committed ones, and so after
        # `to_version`. It is read after `to_version`, so no change up to there is missed.
        opening = await store.version_before(database, id, query.from_)
        after_version = max(after_version, opening or 0)
    scope = cursors.scope_of(call.principal.ledger, _STATEMENT, query, id)
    below = cursors.decode_version(scope, query.cursor)
    entries = await statements.statement(
        database,
        id,
        after_version=after_version,
        to_version=min(to_version, BALANCE_MINOR_MAX if below is None else below - 1),
        limit=query.limit + 1,
    )
    items = [entry_view(entry) for entry in entries]
    return listed(call, scope, query.limit, items, [entry.version for entry in entries])


async def _settled(call: Call, id: str, to: datetime | None) -> Wallet:
    """The wallet, once nothing can be added to it before `to`."""
    if to is None:
        wallet = (await store.read_wallets(call.ledger.database, [id])).get(id)
    else:
        try:
            wallet = await call.ledger.past.settle(id, to)
        except InstantNotReached as error:
            raise _not_reached("to", error.now) from None
    if wallet is None:
        raise wallet_not_found(call)
    return wallet


def wallet_id_of(call: Call) -> str:
    """The id in the path. Raises Problem `wallet-not-found` for text in another shape."""
    id = call.path["id"].lower()
    if not is_id(id):
        raise wallet_not_found(call)
    return id


def wallet_not_found(call: Call) -> Problem:
    """The problem of a path that names an unknown wallet."""
    return Problem("wallet-not-found", f"There is no wallet {call.path['id']}.")


def _refuse_funding(call: Call, id: str) -> None:
    if id in call.ledger.funding_wallet_ids:
        raise Problem(
            "forbidden",
            "A funding wallet can be neither frozen nor closed, and has no overdraft limit.",
        )


def _status_operation(kind: ChangeKind, summary: str, *refusals: str) -> Operation:
    return Operation(
        "POST",
        f"/wallets/{{id}}/{kind}",
        f"{kind}_wallet",
        _set_status(kind),
        summary,
        schemas.Wallet,
        "wallets",
        scope="wallets:write",
        key="optional",
        has_if_match=True,
        refusals=("wallet-not-found", "version-changed", "wallet-closed", *refusals),
    )


OPERATIONS = (
    Operation(
        "POST",
        "/wallets",
        "create_wallet",
        create,
        "Create a wallet; its initial balance comes from the currency's funding wallet",
        schemas.Wallet,
        "wallets",
        scope="wallets:write",
        status=201,
        body=schemas.NewWallet,
        key="optional",
        refusals=("user-not-found", "balance-out-of-range", "idempotency-key-missing"),
    ),
    Operation(
        "GET",
        "/wallets",
        "list_wallets",
        list_,
        "List wallets, newest first",
        schemas.Wallet,
        "wallets",
        scope="wallets:read",
        query=schemas.WalletsQuery,
        is_list=True,
        description=f"{BY_ID} The events `wallet.created`, from a webhook or the exchange, miss"
        " none. For one wallet its versions are the position that loses nothing.",
    ),
    Operation(
        "GET",
        "/wallets/{id}",
        "read_wallet",
        read,
        "Read a wallet as it is, or as it was before an instant",
        WalletAnswer,
        "wallets",
        scope="wallets:read",
        query=WalletQuery,
        refusals=("wallet-not-found", "version-not-reached", "overloaded"),
    ),
    Operation(
        "PATCH",
        "/wallets/{id}",
        "update_wallet",
        update,
        "Change a wallet's overdraft limit or metadata",
        schemas.Wallet,
        "wallets",
        scope="wallets:write",
        body=schemas.WalletPatch,
        has_if_match=True,
        refusals=("wallet-not-found", "version-changed", "wallet-closed", "insufficient-funds"),
    ),
    _status_operation(ChangeKind.FREEZE, "Freeze: it may receive, it may not pay"),
    _status_operation(ChangeKind.UNFREEZE, "Unfreeze"),
    _status_operation(ChangeKind.CLOSE, "Close permanently; only at zero", "wallet-not-empty"),
    Operation(
        "GET",
        "/wallets/{id}/statement",
        "list_statement_entries",
        statement,
        "List everything that changed a wallet, newest first",
        schemas.StatementEntry,
        "wallets",
        scope="wallets:read",
        query=StatementQuery,
        is_list=True,
        description="In the order of versions, which have no gaps. `after_version` is the position"
        " that loses nothing; windows of time lose and repeat nothing either.",
        refusals=("wallet-not-found", "version-not-reached", "overloaded"),
    ),
)
