"""The database of a command, and the names of ledgers among its arguments."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import click

from transferd.config import ConfigurationError, Settings
from transferd.domain.ledger import is_ledger_name
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import Missing


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """The database. If it has no tables, the error advises to run `migrate`."""
    with advised_to_migrate():
        async with Database(settings, settings.limits_of(), connections=1) as database:
            yield database


@contextmanager
def advised_to_migrate() -> Iterator[None]:
    """Turn the error about a missing table into a ConfigurationError with that advice."""
    try:
        yield
    except Missing as error:
        raise ConfigurationError(
            f"the database has no ledger yet ({error}): run `transferd migrate`"
        ) from error


def ledger_name(_: click.Context, __: click.Parameter, name: str) -> str:
    """Check the name of a ledger; a callback of click."""
    if not is_ledger_name(name):
        raise click.BadParameter(
            "must be 1 to 40 lower-case letters, digits and hyphens, with a letter first"
        )
    return name
