"""The clock of PostgreSQL, which a fault may set: a function before the one of the same name.

The queries of the service say `clock_timestamp()`, and the path of its role has this schema first.
"""

import asyncpg

_FIRST = """
CREATE SCHEMA IF NOT EXISTS chaos;
ALTER ROLE CURRENT_USER SET search_path = chaos, pg_catalog, public;
"""
_CLOCK = """
CREATE OR REPLACE FUNCTION chaos.clock_timestamp() RETURNS timestamptz LANGUAGE sql
AS 'SELECT pg_catalog.clock_timestamp() + make_interval(secs => {ahead_s})'
"""


async def install(url: str) -> None:
    """Sessions of the service that begin from now on have this clock; it is right."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_FIRST)
    finally:
        await connection.close()
    await set_ahead(url, 0.0)


async def set_ahead(url: str, ahead_s: float) -> None:
    """The clock is so much ahead from now on, for all sessions."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_CLOCK.format(ahead_s=float(ahead_s)))
    finally:
        await connection.close()
