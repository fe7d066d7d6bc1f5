"""Reading and updating users."""

from transferd.domain.errors import DeadlineExceeded
from transferd.domain.user import User
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import ConnectionFailure


async def read_user(database: LedgerDatabase, id: str) -> User | None:
    """One user, or None."""
    rows = await database.fetch("read_user", id)
    return User(*rows[0]) if rows else None


async def list_users(database: LedgerDatabase, *, before_id: str | None, limit: int) -> list[User]:
    """Newest first, those with an id below `before_id`."""
    return [User(*row) for row in await database.fetch("list_users", before_id, limit)]


async def update_user(
    database: LedgerDatabase, id: str, *, name: tuple[str | None] | None, metadata: str | None
) -> User | None:
    """Change the given values (`name` in a tuple, because a name may be set to null).

    Raises StoreError, or DeadlineExceeded if the outcome of the COMMIT is unknown.
    """
    try:
        async with database.transaction() as transaction:
            rows = await transaction.fetch(
                "update_user",
                id,
                name is not None,
                name[0] if name else None,
                metadata is not None,
                metadata,
            )
    except ConnectionFailure as error:
        if error.in_doubt:
            raise DeadlineExceeded() from error
        raise
    return User(*rows[0]) if rows else None
