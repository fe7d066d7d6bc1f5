"""The API keys of a run: one for each ledger."""

from pathlib import Path
from typing import NamedTuple

from loadtest.api import ServiceError
from loadtest.options import Options


class LedgerKey(NamedTuple):
    """The name of a ledger and a token, which is empty if the service requires no keys."""

    ledger: str
    token: str


def keys_of(options: Options) -> list[LedgerKey]:
    """A key for each ledger of the run. Raises ServiceError with a sentence that says how."""
    if not options.keys_file:
        if options.ledgers == 1:
            return [LedgerKey("", options.api_key)]
        raise ServiceError(
            f"{options.ledgers} ledgers need --keys-file with a line NAME TOKEN for each"
            " (transferd keys create --ledger NAME --client loadtest --scope admin prints a token)"
        )
    try:
        lines = Path(options.keys_file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{options.keys_file}: {error}") from None
    rows = [line.split() for line in lines if line.strip()]
    names = {row[0] for row in rows}
    if any(len(row) != 2 for row in rows) or len(names) != len(rows):
        raise ServiceError(f"{options.keys_file} must have lines NAME TOKEN with different names")
    if len(rows) < options.ledgers:
        raise ServiceError(
            f"{options.keys_file} has {len(rows)} keys, and {options.ledgers} ledgers need one each"
        )
    return [LedgerKey(*row) for row in rows[: options.ledgers]]
