"""What PostgreSQL's refusals mean to us, in names that do not depend on the driver."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from transferd.domain.errors import DatabaseUnavailable, Overloaded


class StoreError(Exception):
    """PostgreSQL did not do what it was asked. `sqlstate` is its five-letter code, or empty."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class SerializationFailure(StoreError):
    """40001 or 40P01, or another replica was faster: roll back and run again."""


class Duplicate(SerializationFailure):
    """23505: what this group writes is there already, mostly from its own attempt that was cut."""


class LockTimeout(StoreError):
    """55P03: another transaction has locked a row for longer than lock_timeout."""


class ConnectionFailure(StoreError, DatabaseUnavailable):
    """PostgreSQL is out of reach; nothing happened unless `in_doubt`: COMMIT had been sent."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        StoreError.__init__(self, message, sqlstate)
        self.retry_after_s = 1
        self.in_doubt = False


class Rejected(StoreError):
    """Anything else: a check, a type. Running it again will not help."""


class Missing(Rejected, DatabaseUnavailable):
    """42P01 or 3F000: a table or the schema is not there, as while a ledger is restored."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        StoreError.__init__(self, message, sqlstate)
        self.retry_after_s = 1


class NoConnectionFree(StoreError, Overloaded):
    """All connections for reads are in use; nothing happened. Try again after the time given."""

    def __init__(self, message: str) -> None:
        StoreError.__init__(self, message)
        self.retry_after_s = 1


# Codes after which the server, not the statement, is at fault: try again on another connection.
# 08 connection, 53 resources (disk, connections), 57P operator, 25P03 idle in transaction, 58 I/O.
# 57014 a statement that took too long on a slow server, 25006 a server that only reads (after a
# failover: the next connection may find the right one).
_SERVER_AT_FAULT = ("08", "53", "57P", "25P03", "58", "57014", "25006")


# What the driver raises when a connection is lost. InternalClientError: the server has ended it
# between two messages of one statement, or while this process hung.
CONNECTION_ERRORS = (
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the driver's errors as StoreError, `from` the original."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _translate(error) from error
    except CONNECTION_ERRORS as error:
        text = str(error) or type(error).__name__
        if isinstance(error, asyncpg.InterfaceError) and not _is_about_connection(error):
            # What follows is the value that could not be encoded; it is nothing for a log.
            raise Rejected(text.partition(":")[0]) from error
        raise ConnectionFailure(text) from error


def _translate(error: asyncpg.PostgresError) -> StoreError:
    sqlstate = error.sqlstate or ""
    # Without the details that PostgreSQL adds: they quote the row, with its key or its metadata.
    text = str(error.args[0]) if error.args else type(error).__name__
    if sqlstate in ("40001", "40P01"):
        return SerializationFailure(text, sqlstate)
    if sqlstate == "23505":
        return Duplicate(text, sqlstate)
    if sqlstate == "55P03":
        return LockTimeout(text, sqlstate)
    if sqlstate.startswith(_SERVER_AT_FAULT):
        return ConnectionFailure(text, sqlstate)
    if sqlstate in ("42P01", "3F000"):
        return Missing(text, sqlstate)
    return Rejected(text, sqlstate)


def _is_about_connection(error: asyncpg.InterfaceError) -> bool:
    # DataError (a value that cannot be encoded) is an InterfaceError too, not about the server.
    return not isinstance(error, ValueError)
