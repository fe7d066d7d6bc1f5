"""The prefix of a ledger's keys in Redis."""

from transferd.domain.ledger import MAIN, Ledger


def prefix_of(ledger: Ledger) -> str:
    """What the keys of a ledger begin with. No key of one ledger and generation is one of another.

    The first generation of main has the prefix of the versions without ledgers, so that replicas of
    both versions share snapshots and claims.
    """
    if ledger.number == MAIN.number and ledger.cache_generation == 0:
        return "td:"
    return f"td:{ledger.number}.{ledger.cache_generation}:"
