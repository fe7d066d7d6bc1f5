"""A clock of the database that a test moves forward.

The queries of the service name `clock_timestamp()` and `statement_timestamp()` without a schema, so
PostgreSQL finds the functions in the first schema of the search path.
"""

from tests.conftest import Database

_MOVED = """
CREATE OR REPLACE FUNCTION moved_clock.{name}() RETURNS timestamptz LANGUAGE sql {volatility}
AS 'SELECT pg_catalog.{name}() + make_interval(secs => {ahead_s})'"""
_FUNCTIONS = {"clock_timestamp": "VOLATILE", "statement_timestamp": "STABLE"}


async def use_moved_clock(database: Database) -> None:
    """Give the database a clock for `move_clock`; only new connections use it."""
    name, on_every_node = database.name, database.servers.on_every_node
    await on_every_node("CREATE SCHEMA moved_clock", database=name)
    await move_clock(database, 0)
    await on_every_node("GRANT USAGE ON SCHEMA moved_clock TO transferd", database=name)
    await on_every_node(f"ALTER DATABASE {name} SET search_path = moved_clock, pg_catalog, public")


async def move_clock(database: Database, ahead_s: int) -> None:
    """Set the database's clock, on each server, ahead of the machine's by so many seconds."""
    moved = "; ".join(
        _MOVED.format(name=name, volatility=volatility, ahead_s=ahead_s)
        for name, volatility in _FUNCTIONS.items()
    )
    await database.servers.on_every_node(moved, database=database.name)
