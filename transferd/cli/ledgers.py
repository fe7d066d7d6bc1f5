"""`transferd ledgers`: creates, lists, shows and audits ledgers."""

import json
from collections.abc import Mapping, Set
from typing import Any

import click
from rich import box
from rich.filesize import decimal
from rich.table import Table

from transferd.cli.audit import audit_command
from transferd.cli.database import advised_to_migrate, ledger_name, opened
from transferd.cli.running import print_table, run, settings_of
from transferd.config import Settings
from transferd.domain.ledger import Ledger
from transferd.domain.times import rfc3339
from transferd.ledger.migrate import create_ledger
from transferd.ledger.steps import ledger_migrations
from transferd.ledger.store.ledgers import (
    ListedLedger,
    list_ledgers,
    raise_cache_generation,
    read_listed_ledger,
    read_waiting,
    table_sizes,
)
from transferd.ledger.store.migrations import applied_to_ledgers

_UNREADABLE = "unreadable"


@click.group()
def ledgers() -> None:
    """Ledgers: create, list, show, audit, forget their cache."""


ledgers.add_command(audit_command)


@ledgers.command("create")
@click.argument("name", callback=ledger_name)
def create_command(*, name: str) -> None:
    """Create a ledger with its tables and currencies. A name is never changed."""
    run(_create(settings_of(), name))


async def _create(settings: Settings, name: str) -> int:
    with advised_to_migrate():
        ledger = await create_ledger(settings, settings.limits_of(), name)
    click.echo(f"created the ledger {name}: number {ledger.number}, schema {ledger.schema}")
    return 0


@ledgers.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_command(*, as_json: bool) -> None:
    """List ledgers with their clients, usable API keys and sizes on disk."""
    run(_list(settings_of(), as_json))


async def _list(settings: Settings, as_json: bool) -> int:
    views = []
    async with opened(settings) as database:
        async for page in list_ledgers(database):
            applied = await applied_to_ledgers(database, [each.ledger for each in page])
            views += [_view(each, applied) for each in page]
    if as_json:
        for view in views:
            click.echo(json.dumps(view))
        return 0
    table = Table("name", "number", "schema", "migrations", box=box.SIMPLE_HEAD)
    for title in ("clients", "keys", "size"):
        table.add_column(title, justify="right")
    for view in views:
        missing = view["missing_migrations"]
        state = _UNREADABLE if missing is None else f"{len(missing)} missing"
        numbers = (str(view[name]) for name in ("clients", "usable_keys"))
        table.add_row(
            *(view["name"], str(view["number"]), view["schema"]),
            *("up to date" if missing == [] else state, *numbers, decimal(view["bytes"])),
        )
    print_table(table)
    click.echo(f"{len(views)} ledger{'s' if len(views) != 1 else ''}")
    return 0


def _view(listed: ListedLedger, applied: Mapping[Ledger, Set[str]]) -> dict[str, Any]:
    """As JSON; `missing_migrations` is None if the tables of the ledger cannot be read."""
    ledger, names = listed.ledger, applied.get(listed.ledger)
    return {
        "name": ledger.name,
        "number": ledger.number,
        "schema": ledger.schema,
        "created_at": rfc3339(listed.created_at),
        "clients": listed.clients,
        "usable_keys": listed.usable_keys,
        "bytes": listed.bytes,
        "missing_migrations": None
        if names is None
        else [each.name for each in ledger_migrations() if each.name not in names],
    }


@ledgers.command("show")
@click.argument("name", callback=ledger_name)
def show_command(*, name: str) -> None:
    """Show a ledger as JSON, with its migrations, its tables, and what waits in it."""
    run(_show(settings_of(), name))


async def _show(settings: Settings, name: str) -> int:
    async with opened(settings) as database:
        listed = await read_listed_ledger(database, name)
        ledger = listed.ledger
        applied = await applied_to_ledgers(database, [ledger])
        waiting = await read_waiting(database, settings.limits_of(), ledger)
        tables = await table_sizes(database, ledger)
    names = applied.get(ledger)
    view = _view(listed, applied) | {
        "migrations": None if names is None else sorted(names),
        "cache_generation": ledger.cache_generation,
        "waiting": None if waiting is None else waiting._asdict(),
        "tables": [each._asdict() for each in tables],
    }
    click.echo(json.dumps(view, indent=2))
    return 0


@ledgers.command("forget-cache")
@click.argument("name", callback=ledger_name)
def forget_cache_command(*, name: str) -> None:
    """Let replicas use nothing that Redis has of a ledger, for a restore of this ledger."""
    run(_forget_cache(settings_of(), name))


async def _forget_cache(settings: Settings, name: str) -> int:
    limits = settings.limits_of()
    async with opened(settings) as database:
        ledger = await raise_cache_generation(database, name)
    click.echo(
        f"cache generation {ledger.cache_generation} of {name}: each replica follows within"
        f" {limits.api_key_cache_s:g} s. Until then it may return wallets of up to"
        f" {limits.snapshot_ttl_s} s ago and stored answers to repeated requests. Restart replicas"
        " that run with TRANSFERD_AUTH=off."
    )
    return 0
