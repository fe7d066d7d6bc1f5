"""The transaction of one group: attempts, retries, and halving to isolate a failing command."""

import asyncio
from collections.abc import Callable, Sequence

from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.commit.events import events_of
from transferd.commit.record import record
from transferd.commit.renderer import Renderer
from transferd.commit.report import Report
from transferd.commit.state import book_of, expire_due_holds
from transferd.commit.trail import Trail
from transferd.config import Limits
from transferd.domain.book import BatchPosted, Book, Outcome
from transferd.domain.command import named_holds, touched_wallets
from transferd.domain.decide import BatchDecision, decide
from transferd.domain.errors import (
    DatabaseUnavailable,
    InternalFailure,
    Overloaded,
    Refused,
    TransferdError,
)
from transferd.domain.hold import Capture, ExpireHolds
from transferd.domain.refusals import key_reused
from transferd.domain.transfer import Batch, Reversal, Transfer
from transferd.domain.wallet import ChangeKind
from transferd.ledger.store import group as store
from transferd.ledger.store.database import LedgerDatabase, Transaction
from transferd.ledger.store.errors import (
    ConnectionFailure,
    Duplicate,
    LockTimeout,
    Missing,
    SerializationFailure,
)
from transferd.ledger.store.group_rows import GroupResult
from transferd.ledger.store.outcomes import StoredOutcome, read_outcomes
from transferd.observability.facts import (
    About,
    CommandPoisoned,
    Facts,
    GroupRetried,
    HoldsCaptured,
    HoldsExpired,
)


class GroupTransaction:
    """Commits groups. `clock` returns seconds and is the clock of the envelopes' deadlines."""

    def __init__(
        self,
        database: LedgerDatabase,
        renderer: Renderer,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._renderer = renderer
        self._limits = limits
        self._facts = facts
        self._clock = clock
        # Wallets whose row another transaction has locked for longer than lock_timeout. Until a
        # group can lock them, their commands run in a separate transaction with SKIP LOCKED.
        self._contended: set[str] = set()
        # The trail of the current group.
        self._trail = Trail(clock)

    async def commit(self, envelopes: Sequence[Envelope], trail: Trail) -> Report:
        """Commit the envelopes in order. Reports the failures of commands and servers, and never
        raises them."""
        self._trail = trail
        if not self._contended:
            return await self._commit(envelopes, skip_locked=False)
        held: list[Envelope] = []
        report = await self._commit(_without(envelopes, self._contended, held), skip_locked=False)
        report.add(await self._commit(held, skip_locked=True))
        return report

    async def _commit(self, envelopes: Sequence[Envelope], *, skip_locked: bool) -> Report:
        wanted = [e for e in envelopes if not self._is_too_late(e)]
        late = Report(failures=[(e, Overloaded()) for e in envelopes if self._is_too_late(e)])
        if not wanted:
            return late
        try:
            report = await self._retried(wanted, skip_locked=skip_locked)
        except Missing:
            # Not retried: the retries would keep a lane from other ledgers.
            report = Report(failures=[(envelope, DatabaseUnavailable()) for envelope in wanted])
        except Exception as error:
            if len(wanted) == 1:
                command = type(wanted[0].command).__name__
                self._facts.emit(CommandPoisoned(command, error, _about(wanted[0])))
                report = Report(failures=[(wanted[0], InternalFailure())])
            else:
                # One of the commands fails each time. Halve the group, in order, until that command
                # is alone; the others commit.
                middle = len(wanted) // 2
                report = await self._commit(wanted[:middle], skip_locked=skip_locked)
                report.add(await self._commit(wanted[middle:], skip_locked=skip_locked))
        report.add(late)
        return report

    def _is_too_late(self, envelope: Envelope) -> bool:
        """Whether it is over, or its deadline is before the end of the longest possible attempt."""
        return (
            envelope.is_over or self._clock() + self._limits.command_timeout_s > envelope.deadline
        )

    async def _retried(self, envelopes: Sequence[Envelope], *, skip_locked: bool) -> Report:
        """Run attempts until one commits. Fails envelopes whose deadline leaves no time for another
        attempt. Raises every error that another attempt would not avoid."""
        given_up = Report()
        wait_s = 0.0
        duplicates = 0
        failure: TransferdError
        while envelopes:
            began = self._clock()
            try:
                report = await self._attempt(envelopes, skip_locked=skip_locked)
            except SerializationFailure as error:
                # The next attempt finds the row that this one conflicted with. A duplicate that
                # repeats is a fault of one of the commands.
                duplicates += isinstance(error, Duplicate)
                if duplicates > self._limits.duplicate_attempts_max:
                    raise
                cause, failure = error.sqlstate or "conflict", Overloaded()
            except LockTimeout as error:
                if skip_locked:
                    # The whole table is locked. Retries would keep a lane from other ledgers.
                    given_up.aside += envelopes
                    return given_up
                skip_locked = True
                cause, failure = error.sqlstate, Overloaded()
            except ConnectionFailure as error:
                for envelope in envelopes:
                    envelope.in_doubt = envelope.in_doubt or error.in_doubt
                cause, failure = error.sqlstate or "connection", DatabaseUnavailable()
            else:
                report.add(given_up)
                return report
            self._trail.retry()
            self._facts.emit(GroupRetried(cause, len(envelopes)))
            now = self._clock()
            # Another attempt is expected to take as long as this one did.
            soonest, expected = now + wait_s, now + wait_s + (now - began)
            staying = [e for e in envelopes if self._may_retry(e, soonest, expected)]
            given_up.failures += [(e, failure) for e in {*envelopes} - {*staying}]
            envelopes = staying
            await asyncio.sleep(wait_s)
            self._trail.begin()
            wait_s = min(
                max(2 * wait_s, self._limits.retry_wait_first_s), self._limits.retry_wait_max_s
            )
        return given_up

    def _may_retry(self, envelope: Envelope, soonest: float, expected: float) -> bool:
        """Whether another attempt, from `soonest` to `expected`, fits before the deadline.

        A command that fails between attempts has done nothing, and its answer says so. A command
        whose deadline passes during an attempt has an unknown outcome. For a command in doubt only
        another attempt can find the outcome, so it needs time only for the shortest attempt.
        """
        shortest = soonest + self._limits.lock_timeout_s
        return envelope.deadline >= (shortest if envelope.in_doubt else max(shortest, expected))

    async def _attempt(self, envelopes: Sequence[Envelope], *, skip_locked: bool) -> Report:
        """Run one transaction: lock, look up, decide, write. A StoreError rolls it back."""
        report = Report()
        async with self._database.transaction(is_retried=True) as transaction:
            self._trail.end("begin")
            asked_at = self._clock()
            touched = {id for e in envelopes for id in touched_wallets(e.command)}
            holds = {id for e in envelopes for id in named_holds(e.command)}
            keys = [envelope.key for envelope in envelopes if envelope.key is not None]
            locked = await store.lock_and_look_up(
                transaction, touched, holds, keys, skip_locked=skip_locked
            )
            self._trail.end("lock and look up")
            report.at, report.asked_at = locked.at, asked_at
            if skip_locked:
                self._contended -= touched
                self._contended |= locked.contended
                if len(self._contended) > self._limits.contended_wallets_max:
                    self._contended.clear()
                envelopes = _without(envelopes, locked.contended, report.aside)
            result = GroupResult(
                locked.at, {wallet.id: wallet.version for wallet in locked.wallets.values()}
            )
            book = await book_of(transaction, locked, [e.command for e in envelopes])
            expiries = await expire_due_holds(transaction, book, result, self._limits)
            report.late_expiries_s = expiries.late_s
            envelopes = _without(envelopes, expiries.postponed, report.aside)
            repeated: list[tuple[Envelope, StoredOutcome]] = []
            for envelope in envelopes:
                if (
                    envelope.key is not None
                    and (stored := locked.outcomes.get(envelope.key)) is not None
                ):
                    repeated.append((envelope, stored))
                else:
                    await self._decide(envelope, book, result, report)
            await assert_no_outcome(transaction, report.answers)
            if repeated:
                report.answers += await self.replay(repeated, transaction)
                report.replayed += len(repeated)
            result.wallets = book.wallets
            self._trail.end("decide")
            if result:
                await store.write(
                    transaction,
                    result,
                    outbox_row_events_max=self._limits.outbox_row_events_max,
                )
                self._trail.end("write")
        self._trail.end("commit")
        self._emit_about_holds(result, report)
        report.wallets = {wallet.id: wallet for wallet in result.changed_wallets()}
        # The replica that committed a repeated command (or this replica, in an earlier attempt) may
        # have failed before it refreshed the cache. So this attempt refreshes the wallets of such
        # commands as well; it has read them under their locks.
        earlier = [e for e, _ in repeated] + [e for e in envelopes if e.in_doubt]
        ids = {id for envelope in earlier for id in touched_wallets(envelope.command)}
        report.wallets |= {id: locked.wallets[id] for id in ids if id in locked.wallets}
        return report

    async def _decide(
        self, envelope: Envelope, book: Book, result: GroupResult, report: Report
    ) -> None:
        if isinstance(envelope.command, Batch):
            outcome = await self._decide_batch(envelope.command, book)
        else:
            outcome = decide(envelope.command, book)
        book.apply(outcome)
        answer = self._renderer.answer(envelope, outcome)
        if isinstance(outcome, Refused):
            report.refused += envelope.weight
        else:
            before = len(result.transfers)
            # Expiries that the sweep asks for are not counted as commands.
            posted = 0 if isinstance(envelope.command, ExpireHolds) else record(outcome, result)
            if self._facts.per_request_facts:
                ids = envelope.origin.request_id, envelope.origin.traceparent
                report.posted_abouts += [About(*ids, t.id) for t in result.transfers[before:]]
            result.events += events_of(envelope.origin, outcome)
            report.posted += posted
            if isinstance(outcome, BatchPosted):
                report.refused += envelope.weight - posted
        if envelope.key is not None and answer.stored is not None:
            stored = StoredOutcome(envelope.stored_fingerprint, answer.status, answer.stored)
            result.outcomes.append((envelope.key, stored))
        report.answers.append((envelope, answer))

    def _emit_about_holds(self, result: GroupResult, report: Report) -> None:
        captures = [c for c in result.changes if c.kind is ChangeKind.HOLD_CAPTURE]
        if captures:
            self._facts.emit(HoldsCaptured(len(captures)))
        if report.late_expiries_s:
            self._facts.emit(HoldsExpired(report.late_expiries_s))

    async def _decide_batch(self, command: Batch, book: Book) -> Outcome:
        """Decide in steps, so that the event loop serves other requests in between."""
        decision, per_step = BatchDecision(command, book), self._limits.items_per_tick
        outcome = decision.step(per_step)
        while outcome is None:
            await asyncio.sleep(0)
            outcome = decision.step(per_step)
        return outcome

    async def replay(
        self,
        repeated: Sequence[tuple[Envelope, StoredOutcome]],
        source: LedgerDatabase | Transaction,
    ) -> list[tuple[Envelope, Answer]]:
        """Answer repeated requests from their stored outcomes."""
        theirs = [s.answer for e, s in repeated if e.fingerprint.matches(s.fingerprint)]
        bodies = iter(await self._renderer.replay(theirs, source))
        answers = []
        for envelope, stored in repeated:
            if not envelope.fingerprint.matches(stored.fingerprint):
                answer = self._renderer.answer(envelope, key_reused())
            else:
                envelope.stored_fingerprint = stored.fingerprint
                # A command in doubt finds the outcome of its own earlier attempt: no replay.
                replayed = not envelope.in_doubt
                answer = Answer(stored.status, next(bodies), stored.answer, replayed)
            answers.append((envelope, answer))
        return answers


def _about(envelope: Envelope) -> About:
    command, origin = envelope.command, envelope.origin
    id = command.id if isinstance(command, Transfer | Reversal | Capture) else None
    return About(origin.request_id, origin.traceparent, id)


def _without(
    envelopes: Sequence[Envelope], contended: set[str], aside: list[Envelope]
) -> list[Envelope]:
    """Returns the envelopes that touch no contended wallet, and appends the others to `aside`."""
    free = []
    for envelope in envelopes:
        if contended.isdisjoint(touched_wallets(envelope.command)):
            free.append(envelope)
        else:
            aside.append(envelope)
    return free


async def assert_no_outcome(
    transaction: Transaction, answers: Sequence[tuple[Envelope, Answer]]
) -> None:
    """Raise SerializationFailure if a key of an answer that is not kept has an outcome by now.

    The statement that locks and looks up sees no outcome whose COMMIT it waited for. An answer that
    is kept finds such an outcome through the conflict at its insert. Other answers need this query.
    """
    keys = [e.key for e, answer in answers if e.key is not None and not answer.kept]
    if keys and await read_outcomes(transaction, keys):
        raise SerializationFailure("another request with this key was faster")
