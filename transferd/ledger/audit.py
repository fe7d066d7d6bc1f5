"""The audit: checks that every balance follows from its history, and lists each deviation."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import orjson

from transferd.config import ConfigurationError, Limits
from transferd.ledger.citus import rights_too_many
from transferd.ledger.store.database import LedgerDatabase, Row, Transaction
from transferd.ledger.store.errors import Rejected
from transferd.ledger.store.outcomes import RENDER_BATCH, RENDER_VERSION_MAX

# The statuses that the edge stores with outcomes. The audit has its own list, because it must not
# trust the code that it audits.
_POSTED = 201
_SUCCESSES = frozenset({200, 201, 202})
_REFUSALS = range(400, 500)


class Check(StrEnum):
    """The checks; the comments in `audit.sql` and `citus.sql` give the reasons."""

    CURRENCY_SUM = "currency-sum"
    FUNDING_WALLET = "funding-wallet"
    ORPHAN = "orphan"
    VERSIONS = "versions"
    BALANCE_CHAIN = "balance-chain"
    TIMES = "times"
    WALLET_LIMIT = "wallet-limit"
    CLOSED_WALLET = "closed-wallet"
    WALLET_SETTINGS = "wallet-settings"
    TRANSFER_WALLETS = "transfer-wallets"
    TRANSFER_CURRENCY = "transfer-currency"
    REVERSAL_ORIGINAL = "reversal-original"
    REVERSAL_SIDES = "reversal-sides"
    REVERSAL_CURRENCY = "reversal-currency"
    REVERSAL_SUM = "reversal-sum"
    HELD_SUM = "held-sum"
    HELD_HISTORY = "held-history"
    HOLD_EXPIRY = "hold-expiry"
    HOLD_CAPTURES = "hold-captures"
    HOLD_AMOUNTS = "hold-amounts"
    HOLD_WALLET = "hold-wallet"
    HOLD_HISTORY = "hold-history"
    OUTCOME_TRANSFER = "outcome-transfer"
    OUTCOME_BODY = "outcome-body"
    OUTCOME_RENDER_VERSION = "outcome-render-version"
    OUTCOME_FINGERPRINT = "outcome-fingerprint"
    RIGHTS = "rights"


@dataclass(frozen=True, slots=True)
class Finding:
    """A deviation: the check, its subject (an id or a code), and a sentence about it."""

    check: Check
    subject: str
    detail: str


# Called with the step, the number of its rows that are done, and the number of all its rows.
Progress = Callable[[str, int, int], None]

_WHOLE_LEDGER = ("currency_sums", "funding_wallets", "orphans")
_OF_WALLETS = (
    "wallet_history",
    "wallet_states",
    "wallet_holds",
    "hold_captures",
    "hold_histories",
)
_OF_TRANSFERS = ("transfer_wallets", "reversals", "reversal_sums")
_OF_HOLDS = ("hold_states",)

# The walks start here: these sort before every id and key.
_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_FIRST_KEY = (-(2**31), "")

# SQLSTATE of a missing schema and of a missing table.
_NO_LEDGER = ("3F000", "42P01")
_SUBJECT_OF_MORE = "more"


async def audit(
    database: LedgerDatabase, report_progress: Progress, limits: Limits | None = None
) -> list[Finding]:
    """Check a ledger in one snapshot, without a lock.

    PostgreSQL cannot remove old row versions while the audit runs, so audit a large ledger in a
    quiet hour or on a standby. Raises ConfigurationError without its tables, and StoreError.
    """
    run = _Audit(report_progress, limits or Limits())
    try:
        async with database.snapshot(
            file="audit.sql", query_timeout_s=run.limits.audit_query_timeout_s
        ) as view:
            await run.check(view)
        # Rights belong to no snapshot.
        run.take_rights(
            await rights_too_many(database, query_timeout_s=run.limits.audit_query_timeout_s)
        )
    except Rejected as error:
        if error.sqlstate in _NO_LEDGER:
            raise ConfigurationError(
                f"it has no tables ({error}): run `transferd migrate`, or restore it"
            ) from error
        raise
    return run.findings()


class _Audit:
    """The findings and the progress of one run."""

    def __init__(self, report_progress: Progress, limits: Limits) -> None:
        self.limits = limits
        self._report = report_progress
        self._found: dict[Check, list[Finding]] = {check: [] for check in Check}
        self._done: defaultdict[str, int] = defaultdict(int)
        self._total: defaultdict[str, int] = defaultdict(int)

    def findings(self) -> list[Finding]:
        """All findings, by check; a check with too many has a last finding that says so."""
        return [finding for found in self._found.values() for finding in found]

    async def check(self, view: Transaction) -> None:
        """All checks."""
        [counts] = await view.fetch("row_counts")
        for step, count in counts.items():
            self._total[step] += count
            self._advance(step, 0)
        for query in _WHOLE_LEDGER:
            # One more than the list may have: then there are more.
            self._take_rows(await view.fetch(query, self.limits.audit_findings_per_check_max + 1))
        self._advance("currencies", counts["currencies"])
        await self._walk(view, "wallets", _OF_WALLETS)
        await self._walk(view, "transfers", _OF_TRANSFERS)
        await self._walk(view, "holds", _OF_HOLDS)
        await self._walk_outcomes(view)

    def take_rights(self, rights: Iterable[str]) -> None:
        """Rights that the role of the service has, and with which history can be changed."""
        detail = "with this right the service could change history: revoke it"
        self._take(Finding(Check.RIGHTS, right, detail) for right in rights)

    async def _walk(self, view: Transaction, step: str, queries: Sequence[str]) -> None:
        """Run the queries over all ids of a table, a chunk at a time."""
        chunk_rows = self.limits.audit_chunk_rows
        following: str | None = _FIRST_ID
        while following is not None:
            page = await view.fetch(f"{step}_page", following, chunk_rows + 1)
            ids = [row["id"] for row in page[:chunk_rows]]
            for query in queries if ids else ():
                self._take_rows(await view.fetch(query, ids[0], ids[-1]))
            following = page[chunk_rows]["id"] if len(page) > chunk_rows else None
            self._advance(step, len(ids))

    async def _walk_outcomes(self, view: Transaction) -> None:
        chunk_rows = self.limits.audit_chunk_rows
        following: tuple[int, str] | None = _FIRST_KEY
        while following is not None:
            page = await view.fetch("outcomes_page", *following, chunk_rows + 1)
            for row in page[:chunk_rows]:
                self._take(_judge_outcome(row))
                if row["render_version"] == RENDER_BATCH and row["has_body"]:
                    await self._judge_batch(view, row)
            last = page[chunk_rows] if len(page) > chunk_rows else None
            following = (last["client_id"], last["key"]) if last else None
            self._advance("outcomes", len(page[:chunk_rows]))

    async def _judge_batch(self, view: Transaction, row: Row) -> None:
        """Whether a batch can be answered again: all its transfers are there."""
        [stored] = await view.fetch("outcome_body", row["client_id"], row["key"])
        subject = _subject_of(row)
        ids = _transfers_of(stored["body"])
        if ids is None:
            detail = "its body is not a list of ids and problems"
            self._take([Finding(Check.OUTCOME_BODY, subject, detail)])
            return
        missing = await view.fetch(
            "missing_transfers", ids, self.limits.audit_missing_transfers_max
        )
        self._take(
            Finding(Check.OUTCOME_TRANSFER, subject, f"its transfer {gone['id']} is missing")
            for gone in missing
        )

    def _advance(self, step: str, rows: int) -> None:
        self._done[step] += rows
        self._report(step, self._done[step], self._total[step])

    def _take_rows(self, rows: Iterable[Row]) -> None:
        self._take(Finding(Check(row["check"]), row["subject"], row["detail"]) for row in rows)

    def _take(self, findings: Iterable[Finding]) -> None:
        listed_max = self.limits.audit_findings_per_check_max
        for finding in findings:
            found = self._found[finding.check]
            if len(found) < listed_max:
                found.append(finding)
            elif len(found) == listed_max:
                detail = f"only the first {listed_max} are listed"
                found.append(Finding(finding.check, _SUBJECT_OF_MORE, detail))


def _judge_outcome(row: Row) -> Iterator[Finding]:
    """Findings about the outcome of a key: whether it can be answered again."""
    subject = _subject_of(row)
    if not 1 <= row["render_version"] <= RENDER_VERSION_MAX:
        detail = f"no renderer has version {row['render_version']}"
        yield Finding(Check.OUTCOME_RENDER_VERSION, subject, detail)
    if row["fingerprint_bytes"] != 16:
        detail = f"its fingerprint has {row['fingerprint_bytes']} bytes, not 16"
        yield Finding(Check.OUTCOME_FINGERPRINT, subject, detail)
    if row["transfer_id"] is not None:
        if not row["is_stored"]:
            detail = f"its transfer {row['transfer_id']} is missing"
            yield Finding(Check.OUTCOME_TRANSFER, subject, detail)
        if row["status"] != _POSTED:
            detail = (
                f"leads to transfer {row['transfer_id']} with status {row['status']}, not {_POSTED}"
            )
            yield Finding(Check.OUTCOME_TRANSFER, subject, detail)
    if (row["transfer_id"] is None) == (not row["has_body"]):
        which = "both" if row["has_body"] else "neither"
        yield Finding(Check.OUTCOME_BODY, subject, f"has {which} of transfer and body")
    if row["body"] is not None and (complaint := _complaint_about(row["body"], row["status"])):
        yield Finding(Check.OUTCOME_BODY, subject, complaint)


def _subject_of(row: Row) -> str:
    return f"client {row['client_id']}, key {row['key']}"


def _transfers_of(body: bytes) -> list[str] | None:
    """The ids in the stored body of a batch; None if it is not the body of a batch."""
    try:
        items = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(items, list) or not all(isinstance(item, str | dict) for item in items):
        return None
    ids = [item for item in items if isinstance(item, str)]
    try:
        return [str(UUID(id)) for id in ids]
    except ValueError:
        return None


def _complaint_about(body: bytes, status: int) -> str | None:
    """The reason why a stored body does not fit this status; None if it fits."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "its body is not JSON"
    if not isinstance(answer, dict | list):
        return "its body is neither an object nor a list"
    # The body of a problem contains its HTTP status; the status of a wallet is a word.
    repeated = answer.get("status") if isinstance(answer, dict) else None
    if status in _REFUSALS:
        fits = repeated == status
    else:
        # Failures of the machinery are never stored.
        fits = status in _SUCCESSES and not isinstance(repeated, int)
    return None if fits else f"status {status} does not fit its body (status {repeated})"
