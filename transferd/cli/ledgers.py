"""`transferd ledgers`: creates, lists, shows, audits and moves ledgers."""

import json
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import click
from rich import box
from rich.filesize import decimal
from rich.table import Table

from transferd.cli.audit import audit_command
from transferd.cli.database import advised_to_migrate, ledger_name, opened
from transferd.cli.ledgers_move import move_command
from transferd.cli.running import print_table, run, settings_of
from transferd.config import Settings
from transferd.domain.ledger import Ledger
from transferd.domain.times import rfc3339
from transferd.ledger import citus
from transferd.ledger.migrate import create_ledger
from transferd.ledger.steps import ledger_migrations
from transferd.ledger.store.database import Database
from transferd.ledger.store.ledgers import (
    ListedLedger,
    list_ledgers,
    raise_cache_generation,
    read_waiting,
    table_sizes,
)
from transferd.ledger.store.migrations import applied_to_ledgers
from transferd.ledger.store.placement import Node


@click.group()
def ledgers() -> None:
    """Ledgers: create, list, show, audit, move, forget their cache."""


ledgers.add_command(audit_command)
ledgers.add_command(move_command)


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
    """List ledgers with their clients, usable API keys and sizes as of the last vacuum."""
    run(_list(settings_of(), as_json))


async def _list(settings: Settings, as_json: bool) -> int:
    async with opened(settings) as database:
        listed = await list_ledgers(database)
        applied = await applied_to_ledgers(database, [each.ledger for each in listed])
        places = await _places(database)
    known = [each.name for each in ledger_migrations()]
    views = [_view(each, known, applied.get(each.ledger), places) for each in listed]
    if as_json:
        for view in views:
            click.echo(json.dumps(view))
        return 0
    _print_ledgers(views)
    click.echo(f"{len(views)} ledger{'s' if len(views) != 1 else ''}")
    return 0


def _print_ledgers(views: Sequence[Mapping[str, Any]]) -> None:
    texts = (
        "name",
        "number",
        "schema",
        *(["node"] if any("node" in each for each in views) else []),
    )
    table = Table(*texts, "migrations", box=box.SIMPLE_HEAD)
    for title in ("clients", "keys", "size"):
        table.add_column(title, justify="right")
    for view in views:
        missing = view["missing_migrations"]
        state = "unreadable" if missing is None else f"{len(missing)} missing"
        table.add_row(
            *(str(view[name]) for name in texts),
            "up to date" if missing == [] else state,
            *(str(view[name]) for name in ("clients", "usable_keys")),
            "unknown" if view["bytes_about"] is None else decimal(view["bytes_about"]),
        )
    print_table(table)


class _Places(NamedTuple):
    """The node of each ledger, and its bytes there, by schema. Both are empty without Citus."""

    nodes: Mapping[str, Node | None]
    bytes: Mapping[str, int]

    def of(self, ledger: Ledger) -> dict[str, Any]:
        """As JSON; nothing without Citus, or before the ledger is placed."""
        if ledger.schema not in self.nodes:
            return {}
        node = self.nodes[ledger.schema]
        # The tables of the coordinator are empty. A node that is down says nothing of its ledgers.
        return {
            "node": "coordinator" if node is None else str(node),
            "bytes_about": self.bytes.get(ledger.schema),
        }


async def _places(database: Database) -> _Places:
    nodes = await citus.placements(database)
    return _Places(nodes, await citus.sizes(database) if nodes else {})


def _view(
    listed: ListedLedger, known: Sequence[str], applied: Set[str] | None, places: _Places
) -> dict[str, Any]:
    """As JSON. `applied` is None if the tables of the ledger cannot be read."""
    ledger = listed.ledger
    return {
        "name": ledger.name,
        "number": ledger.number,
        "schema": ledger.schema,
        "created_at": rfc3339(listed.created_at),
        "clients": listed.clients,
        "usable_keys": listed.usable_keys,
        "bytes_about": listed.bytes_about,
        "missing_migrations": None
        if applied is None
        else [name for name in known if name not in applied],
        **places.of(ledger),
    }


@ledgers.command("show")
@click.argument("name", callback=ledger_name)
def show_command(*, name: str) -> None:
    """Show a ledger as JSON, with its migrations, its tables, and what waits in it."""
    run(_show(settings_of(), name))


async def _show(settings: Settings, name: str) -> int:
    async with opened(settings) as database:
        [listed] = await list_ledgers(database, name)
        ledger = listed.ledger
        applied = (await applied_to_ledgers(database, [ledger])).get(ledger)
        waiting = await read_waiting(database, settings.limits_of(), ledger)
        tables = await table_sizes(database, ledger)
        places = await _places(database)
    known = [each.name for each in ledger_migrations()]
    view = _view(listed, known, applied, places) | {
        "migrations": None if applied is None else sorted(applied),
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
