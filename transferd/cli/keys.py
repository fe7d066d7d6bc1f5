"""`transferd keys`: creates, lists and revokes API keys."""

import json
import secrets
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError
from rich import box
from rich.table import Column, Table
from rich.text import Text

from transferd.cli.database import opened
from transferd.cli.running import print_table, run, settings_of
from transferd.config import Limits, Settings
from transferd.domain.api_key import SCOPES, digest_of, id_in, token_of
from transferd.domain.client import folded_name
from transferd.domain.ledger import Ledger
from transferd.domain.times import rfc3339
from transferd.ledger.store.clients import (
    ListedKey,
    SimilarClient,
    insert_api_key,
    list_api_keys,
    revoke_api_keys,
)
from transferd.ledger.store.ledgers import read_ledger
from transferd.web.fields import StoredTime

# 64 random bits make ids unique; 256 random bits cannot be guessed.
_ID_BYTES = 8
_SECRET_BYTES = 32
_TIMES = ("created", "expires", "last used", "revoked")
# On a narrow terminal a time takes two lines, but a date is never cut.
_DATE_CHARS = len("2026-01-02")
_TIME: TypeAdapter[datetime] = TypeAdapter(StoredTime)


@click.group()
def keys() -> None:
    """API keys: create, list, revoke."""


def _client_name(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    longest = Limits().text_chars_max
    if name is not None and not (
        0 < len(name) <= longest
        and name.isprintable()
        and name == name.strip()
        and folded_name(name)
    ):
        raise click.BadParameter(
            f"must be 1 to {longest} printable characters, not all of them invisible, without"
            " white space at the start or end"
        )
    return name


_in_ledger = click.option(
    "--ledger", metavar="NAME", help="Ledger of the client. Default: TRANSFERD_LEDGER."
)


@keys.command("create")
@_in_ledger
@click.option(
    "--client",
    required=True,
    callback=_client_name,
    help="Owner of the key. All API keys of a client share its Idempotency-Keys.",
)
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    type=click.Choice(SCOPES),
    help="What the key allows; may be given several times. admin includes all.",
)
@click.option(
    "--expires-in-days",
    "days",
    type=click.IntRange(1, 36_500),
    help="Days until the key expires. By default a key does not expire.",
)
@click.option("--expires-at", "at", metavar="TIME", help="RFC 3339: 2031-01-01T00:00:00Z.")
@click.option("--json", "as_json", is_flag=True, help="The key with its token as a JSON object.")
def create_command(
    *,
    ledger: str | None,
    client: str,
    scopes: tuple[str, ...],
    days: int | None,
    at: str | None,
    as_json: bool,
) -> None:
    """Create a key and print its token, which is shown only once."""
    expires_at = _expiry_of(days, at)
    run(_create(_settings_of(ledger), client, scopes, expires_at, as_json))


def _expiry_of(days: int | None, at: str | None) -> datetime | None:
    if days is not None and at is not None:
        raise click.UsageError("--expires-in-days and --expires-at exclude each other")
    if days is not None:
        return datetime.now(UTC) + timedelta(days=days)
    if at is None:
        return None
    try:
        expires_at = _TIME.validate_python(at)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise click.BadParameter(message, param_hint="--expires-at") from error
    if expires_at <= datetime.now(UTC):
        raise click.BadParameter("is in the past", param_hint="--expires-at")
    return expires_at


async def _create(
    settings: Settings,
    client: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    as_json: bool,
) -> int:
    id = secrets.token_hex(_ID_BYTES)
    token = token_of(id, secrets.token_hex(_SECRET_BYTES))
    async with opened(settings) as database:
        ledger = await read_ledger(database, settings.ledger)
        created = await insert_api_key(
            database,
            ledger=ledger,
            id=id,
            client=client,
            secret_sha256=digest_of(token, ledger),
            scopes=[scope for scope in SCOPES if scope in scopes],
            expires_at=expires_at,
        )
    if isinstance(created, SimilarClient):
        raise click.ClickException(
            f"there is a client {created.name!a} already, which differs from {client!a} only in"
            f" case, Unicode form or invisible characters: use --client {shlex.quote(created.name)}"
            " or another name"
        )
    key = created.key
    if as_json:
        shown = _view(key, ledger) | {"client_is_new": created.client_is_new, "token": token}
        click.echo(json.dumps(shown))
        return 0
    if created.client_is_new:
        click.echo(f"client {client} is new in the ledger {ledger.name}", err=True)
    # Only the token goes to standard output, for scripts.
    expiry = "never expires" if expires_at is None else f"expires {rfc3339(expires_at)}"
    click.echo(
        f"key {id} of {client} in the ledger {ledger.name} allows {', '.join(key.scopes)} and"
        f" {expiry}; its token, which is shown only once:",
        err=True,
    )
    click.echo(token)
    return 0


@keys.command("list")
@_in_ledger
@click.option("--client", callback=_client_name, help="Only keys of this client.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_command(*, ledger: str | None, client: str | None, as_json: bool) -> None:
    """List keys, oldest first. Their secrets are not stored."""
    run(_list(_settings_of(ledger), client, as_json))


async def _list(settings: Settings, client: str | None, as_json: bool) -> int:
    async with opened(settings) as database:
        ledger = await read_ledger(database, settings.ledger)
        listed = await list_api_keys(database, ledger=ledger, client=client)
    if as_json:
        for key in listed:
            click.echo(json.dumps(_view(key, ledger)))
        return 0
    if listed:
        _print_keys(listed)
    count = f"{len(listed)} API key{'s' if len(listed) != 1 else ''}"
    click.echo(f"{count} in the ledger {ledger.name}; times are UTC")
    return 0


def _print_keys(listed: Sequence[ListedKey]) -> None:
    table = Table(
        Column("id", no_wrap=True),
        Column("client", overflow="fold"),
        Column("scopes", overflow="fold"),
        *(Column(name, min_width=_DATE_CHARS) for name in _TIMES),
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for key in listed:
        times = (key.created_at, key.expires_at, key.last_used_at, key.revoked_at)
        shown = ["-" if time is None else f"{time:%Y-%m-%d %H:%M}" for time in times]
        # As Text: the name of a client may hold characters that are markup for rich.
        table.add_row(*(Text(cell) for cell in (key.id, key.client, " ".join(key.scopes), *shown)))
    print_table(table)


@keys.command("revoke")
@click.argument("given", metavar="ID...", nargs=-1, required=True)
def revoke_command(*, given: tuple[str, ...]) -> None:
    """Revoke keys permanently, by id or token. Revoking a revoked key is not an error."""
    # Without duplicates, in the given order.
    ids = list(dict.fromkeys(id_in(word) or word for word in given))
    run(_revoke(settings_of(), ids))


async def _revoke(settings: Settings, ids: Sequence[str]) -> int:
    limits = settings.limits_of()
    async with opened(settings) as database:
        revoked = await revoke_api_keys(database, ids)
    for id in ids:
        if id in revoked:
            click.echo(
                f"{id} is revoked; each replica rejects it within {limits.api_key_cache_s:g} s"
            )
    unknown = [id for id in ids if id not in revoked]
    if unknown:
        raise click.ClickException(f"there is no API key {', '.join(unknown)}")
    return 0


def _settings_of(ledger: str | None) -> Settings:
    return settings_of() if ledger is None else settings_of(ledger=ledger)


def _view(key: ListedKey, ledger: Ledger) -> dict[str, Any]:
    view: dict[str, Any] = {**key._asdict(), "ledger": ledger.name}
    for name, value in view.items():
        if isinstance(value, datetime):
            view[name] = rfc3339(value)
    return view
