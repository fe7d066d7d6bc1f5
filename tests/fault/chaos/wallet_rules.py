"""What holds for the books of each wallet, whoever asked for what."""

from collections import Counter
from collections.abc import Iterator

from tests.fault.chaos.evidence import Evidence
from tests.fault.chaos.records import Anomaly, WalletRow


def foreign_change(evidence: Evidence) -> Iterator[Anomaly]:
    """In a round only transfers change wallets."""
    for id in evidence.ledger.before.keys() | evidence.entries.keys():
        if id not in evidence.wallets:
            yield Anomaly("version-gap", f"wallet {id} is not in the ledger")
    for id, wallet in evidence.wallets.items():
        before = evidence.ledger.before.get(id, wallet)
        if _terms(before) != _terms(wallet):
            yield Anomaly("version-gap", f"wallet {id} was changed by something else")
        if before.version > wallet.version:
            yield Anomaly("version-gap", f"wallet {id} went back to version {wallet.version}")


def version_gap(evidence: Evidence) -> Iterator[Anomaly]:
    """Each version once, from the one before the round to the last."""
    for id, wallet in evidence.wallets.items():
        expected = range(evidence.version_before(id) + 1, wallet.version + 1)
        entries = evidence.entries.get(id, {})
        for version in expected:
            if version not in entries:
                yield Anomaly("version-gap", f"wallet {id}: nothing made version {version}")
        for version, made in entries.items():
            if version not in expected:
                yield Anomaly("version-gap", f"wallet {id} has no room for version {version}")
            if len(made) > 1:
                ids = ", ".join(entry.transfer for entry in made)
                yield Anomaly("version-gap", f"wallet {id}: version {version} is made by {ids}")


def wrong_balance(evidence: Evidence) -> Iterator[Anomaly]:
    """Each balance is the one before and the amount, and the last one is the wallet's.

    Beside a version that is missing or doubled nothing is compared: that would be told twice.
    """
    for id, wallet in evidence.wallets.items():
        for version, entries in evidence.entries.get(id, {}).items():
            previous = evidence.balance_at(id, version - 1)
            if len(entries) > 1 or previous is None:
                continue
            [entry] = entries
            if previous + entry.amount != entry.balance_after:
                text = f"{previous} and {entry.amount} became {entry.balance_after}"
                yield Anomaly("wrong-balance", f"wallet {id}, version {version}: {text}")
        last = evidence.balance_at(id, wallet.version)
        if last is not None and last != wallet.balance:
            yield Anomaly("wrong-balance", f"wallet {id} holds {wallet.balance}, its books {last}")


def wrong_sum(evidence: Evidence) -> Iterator[Anomaly]:
    """Money only moves: all wallets of a currency, with the funding one, add up to zero."""
    sums: Counter[str] = Counter()
    for wallet in evidence.wallets.values():
        sums[wallet.currency] += wallet.balance
    for currency, total in sums.items():
        if total != 0:
            yield Anomaly("wrong-balance", f"{currency} adds up to {total}")


def below_limit(evidence: Evidence) -> Iterator[Anomaly]:
    """No wallet but a funding one is ever below its limit, at the end or on the way."""
    for id, wallet in evidence.wallets.items():
        if wallet.funding:
            continue
        if wallet.balance < -wallet.overdraft_limit:
            yield Anomaly("wrong-balance", f"wallet {id} ends at {wallet.balance}")
        for entries in evidence.entries.get(id, {}).values():
            for entry in entries:
                if entry.balance_after < -wallet.overdraft_limit:
                    text = f"wallet {id} is at {entry.balance_after} after {entry.transfer}"
                    yield Anomaly("wrong-balance", text)


def _terms(wallet: WalletRow) -> tuple[str, int, bool]:
    return wallet.currency, wallet.overdraft_limit, wallet.funding
