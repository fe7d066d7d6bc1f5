"""Rules for statements, balances and sums."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from loadtest.proof.evidence import Evidence
from loadtest.proof.record import Entry, State, WalletRow
from loadtest.proof.violations import STALE_READ, VERSION_GAP, WRONG_BALANCE, Violation


def statement(
    wallet: str, start: State, final: State, entries: Iterable[Entry], balance_min: int | None
) -> Iterator[Violation]:
    """Versions increase by one, and each balance is the previous balance plus the amount.

    `entries` are oldest first. They may go beyond `final`, which may have been read earlier.
    """
    before, balances = start, {start.version: start.balance_minor}
    for entry in entries:
        balance = entry.balance_after_minor
        off = balance - before.balance_minor - entry.amount_minor
        if entry.version != before.version + 1:
            text = f"wallet {wallet}: version {entry.version} follows {before.version}"
            yield Violation(VERSION_GAP, f"{text} (transfer {entry.transfer})")
        elif off:
            text = f"wallet {wallet}: at version {entry.version} the balance is {off:+} off"
            yield Violation(WRONG_BALANCE, f"{text} (transfer {entry.transfer})")
        if balance_min is not None and balance < balance_min:
            text = f"wallet {wallet}: {balance} at version {entry.version}"
            yield Violation(WRONG_BALANCE, f"{text} is below {balance_min}")
        before = State(balance, entry.version)
        balances[entry.version] = balance
    if final.version > before.version:
        text = f"version {final.version}, its statement ends at {before.version}"
        yield Violation(VERSION_GAP, f"wallet {wallet}: {text}")
    elif final.version < start.version:
        text = f"version {final.version}, and {start.version} at the start"
        yield Violation(STALE_READ, f"wallet {wallet}: {text}")
    elif balances.get(final.version, final.balance_minor) != final.balance_minor:
        text = f"{final.balance_minor}, its statement says {balances[final.version]}"
        yield Violation(WRONG_BALANCE, f"wallet {wallet}: {text}")


def sums(start: Mapping[str, State], final: Mapping[str, State]) -> Iterator[Violation]:
    """All money stays in these wallets, so their sum does not change."""
    before = sum(state.balance_minor for state in start.values())
    after = sum(state.balance_minor for state in final.values())
    if before != after:
        text = f"the sum of all {len(start)} wallets was {before} and is {after}"
        yield Violation(WRONG_BALANCE, f"{text} ({after - before:+})")


def wrong_statement(evidence: Evidence) -> Iterator[Violation]:
    """Each statement is consistent, and only funding wallets go below their limit."""
    for id, wallet in evidence.wallets.items():
        entries = evidence.statement(id)
        least = None if wallet.funding else -wallet.overdraft_limit
        yield from statement(id, evidence.before(id), wallet.state, entries, least)
        if entries and entries[-1].version > wallet.version:
            text = f"version {wallet.version}, its statement ends at {entries[-1].version}"
            yield Violation(VERSION_GAP, f"wallet {id}: {text}")
        if least is not None and wallet.balance < least:
            yield Violation(WRONG_BALANCE, f"wallet {id} ends at {wallet.balance}")


def foreign_change(evidence: Evidence) -> Iterator[Violation]:
    """No wallet is deleted, and its currency and overdraft limit do not change."""
    for id in evidence.ledger.before.keys() | evidence.entries.keys():
        if id not in evidence.wallets:
            yield Violation(VERSION_GAP, f"wallet {id} is not in the ledger")
    for id, wallet in evidence.wallets.items():
        before = evidence.ledger.before.get(id, wallet)
        if _terms(before) != _terms(wallet):
            yield Violation(VERSION_GAP, f"wallet {id} has another currency or overdraft limit")


def wrong_sum(evidence: Evidence) -> Iterator[Violation]:
    """All wallets of a currency, with the funding wallet, add up to zero."""
    totals: Counter[str] = Counter()
    for wallet in evidence.wallets.values():
        totals[wallet.currency] += wallet.balance
    for currency, total in totals.items():
        if total != 0:
            yield Violation(WRONG_BALANCE, f"{currency} adds up to {total}")


def _terms(wallet: WalletRow) -> tuple[str, int, bool]:
    return wallet.currency, wallet.overdraft_limit, wallet.funding
