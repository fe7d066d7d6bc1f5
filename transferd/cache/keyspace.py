"""The names of a ledger's keys in Redis."""

from transferd.domain.key import Key
from transferd.domain.ledger import MAIN, Ledger


class Keyspace:
    """Names the keys of a ledger. No ledger reads a key of another one, or of its own past.

    The first generation of main has the names of the version without ledgers, so that replicas of
    both versions share snapshots and claims.
    """

    def __init__(self, ledger: Ledger) -> None:
        is_first_of_main = ledger.number == MAIN.number and not ledger.cache_generation
        generation = ledger.cache_generation
        self._prefix = "td:" if is_first_of_main else f"td:{ledger.number}.{generation}:"

    def __repr__(self) -> str:
        return f"<Keyspace {self._prefix}>"

    def of_wallet(self, wallet_id: str) -> str:
        """The key of the snapshot of a wallet."""
        return f"{self._prefix}w:{wallet_id}"

    def of_key(self, key: Key) -> str:
        """The key of a claim or replay. The client's part is a number, so keys never collide."""
        return f"{self._prefix}k:{key[0]}:{key[1]}"
