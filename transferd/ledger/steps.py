"""The files of migrations: of what all ledgers share, and of each ledger."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

# What may contain a semicolon, and the semicolons that end a statement.
_PARTS = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"[^\"]*\"|(\$\w*\$).*?\1|(?P<end>;)", re.DOTALL)

# Any number that is the same in every release: migrations run one after the other.
LOCK = 7_310_423_085


class MigrationError(Exception):
    """The database does not fit the migrations of this release; the message says how."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A file NNNN_name.sql and the SHA-256 of its text."""

    name: str
    sql: str
    sha256: str

    def statements(self) -> list[str]:
        """The statements, each with the comment before it."""
        ends = [found.end() for found in _PARTS.finditer(self.sql) if found["end"]]
        # The last statement may have no semicolon.
        ends.append(len(self.sql))
        texts = [self.sql[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return [text.strip() for text in texts if text.strip()]


def migrations(folder: str = "migrations") -> list[Migration]:
    """All migrations of this release, in order."""
    directory = resources.files("transferd.ledger").joinpath(folder)
    found = []
    for file in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            sql = file.read_text()
            found.append(Migration(file.name, sql, hashlib.sha256(sql.encode()).hexdigest()))
    return found


def ledger_migrations() -> list[Migration]:
    """The migrations that every ledger gets in its schema."""
    return migrations("migrations/ledger")


def missing(known: Sequence[Migration], done: Mapping[str, str]) -> list[Migration]:
    """The migrations that are not applied. `done` has the SHA-256 of those that are, by name.

    Raises MigrationError if a newer release has applied some, or if a file has changed.
    """
    for name in sorted(done.keys() - {migration.name for migration in known}):
        raise MigrationError(
            f"{name} was applied by a newer release: use that release, or restore a backup"
        )
    for migration in known:
        if done.get(migration.name, migration.sha256) != migration.sha256:
            raise MigrationError(
                f"{migration.name} has changed since it was applied: undo the change and put it"
                " into a new migration"
            )
    return [migration for migration in known if migration.name not in done]
