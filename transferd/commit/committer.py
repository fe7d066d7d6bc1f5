"""The committer: collects the turns that are ready and commits them in one transaction."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from transferd.cache.replays import Claim, Replay, Replays
from transferd.cache.wallets import Snapshot, Wallets
from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.commit.fair_share import FairShare
from transferd.commit.lanes import Lanes
from transferd.commit.renderer import Renderer
from transferd.commit.report import Report
from transferd.commit.trail import Trail
from transferd.commit.transaction import GroupTransaction
from transferd.commit.turn import TurnSource
from transferd.commit.waiting_room import WaitingRoom
from transferd.config import Limits
from transferd.domain.errors import InternalFailure
from transferd.domain.refusals import key_reused
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.outcomes import read_outcomes
from transferd.observability.facts import (
    ActorFailed,
    Facts,
    GroupCommitted,
    GroupTraced,
    KeysClaimed,
    TransferPosted,
)


class CommitParts(NamedTuple):
    """What the committers of a ledger share. `database` has a connection for each lane."""

    database: LedgerDatabase
    reads: LedgerDatabase
    wallets: Wallets
    replays: Replays
    renderer: Renderer


class Committer:
    """Commits the groups of one ledger, one at a time, while the next group fills. A lane runs it
    when a turn is ready."""

    def __init__(
        self,
        parts: CommitParts,
        lanes: Lanes,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._database = parts.database
        self._reads = parts.reads
        self._wallets = parts.wallets
        self._replays = parts.replays
        self._renderer = parts.renderer
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._lanes = lanes
        self._transaction = GroupTransaction(parts.database, parts.renderer, limits, facts, clock)
        self._ready: deque[TurnSource] = deque()
        # The number of envelopes in the group in flight.
        self._in_flight = 0
        self._answering: asyncio.Task[None] | None = None
        self._is_attended = False
        # Whether the last group was as large as others allow.
        self.fills_its_share = False
        self._wallet_share = FairShare(
            alone_max=limits.turn_envelopes_max,
            shared_min=limits.shared_turn_envelopes_min,
            shared_for_s=limits.shared_for_s,
            clock=clock,
        )
        self._ledger_share = FairShare(
            alone_max=limits.group_envelopes_max,
            shared_min=limits.shared_group_envelopes_min,
            shared_for_s=limits.group_shared_for_s,
            clock=clock,
        )
        self.waiting_room = WaitingRoom(limits, clock, self.announce)

    def __repr__(self) -> str:
        return f"<Committer {len(self._ready)} ready, {self.waiting_room!r}>"

    @property
    def node(self) -> Hashable:
        """The database server that holds the ledger."""
        return self._database.node

    @property
    def has_ready(self) -> bool:
        """Whether a turn is ready."""
        return bool(self._ready)

    @property
    def waiting(self) -> int:
        """The number of envelopes that wait or are in flight."""
        return self._in_flight + sum(source.waiting for source in self._ready)

    def announce(self, source: TurnSource, *, urgent: bool = False) -> None:
        """Queue `source`, which has a turn ready. The next group takes the turn."""
        if urgent:
            self._ready.appendleft(source)
        else:
            self._ready.append(source)
        self._lanes.announce(self)

    async def commit_once(self) -> int:
        """Commit one group of the turns that are ready. Returns its number of envelopes.

        A task sends its answers while the next group is in flight. Waiting for that task here would
        leave PostgreSQL idle during the answers, and the event loop idle during the transaction.
        """
        turns = self._collect()
        envelopes = [envelope for _, turn in turns for envelope in turn]
        self._in_flight = len(envelopes)
        trail = Trail(self._clock)
        try:
            report = await self._commit(envelopes, trail) if envelopes else Report()
        except Exception as error:
            self._facts.emit(ActorFailed(error))
            report = Report(failures=[(envelope, InternalFailure()) for envelope in envelopes])
        finally:
            self._in_flight = 0
            for source, _ in turns:
                if source.end_turn():
                    self.announce(source)
        if self._answering is not None:
            await self._answering
        self._answering = asyncio.create_task(self._answer(report, trail))
        if len(self.waiting_room) and not self._is_attended:
            self._is_attended = True
            self._lanes.start(self._attend())
        return len(envelopes)

    async def _attend(self) -> None:
        """Call `attend_once` at intervals while envelopes wait in the room."""
        try:
            while len(self.waiting_room):
                await asyncio.sleep(self._limits.claim_poll_s / 2)
                await self.attend_once()
        finally:
            self._is_attended = False

    async def attend_once(self) -> int:
        """Announce the envelopes whose wait is over. Returns their number."""
        keys = self.waiting_room.keys_to_ask()
        try:
            known = await read_outcomes(self._reads, keys) if keys else {}
        except StoreError:
            # PostgreSQL does not answer: the envelopes wait until `claim_wait_s` has passed.
            known = {}
        return self.waiting_room.release(known)

    def _collect(self) -> list[tuple[TurnSource, Sequence[Envelope]]]:
        """Take turns in the order of their announcement, until the group is full."""
        turns: list[tuple[TurnSource, Sequence[Envelope]]] = []
        counted_max = self._limits.counted_envelopes_max
        elsewhere = sum(min(other.waiting, counted_max) for other in self._lanes.others(self))
        share = room = self._ledger_share.envelopes_max(elsewhere)
        turn_max = self._wallet_share.envelopes_max(len(self._ready) - 1)
        while self._ready and room > 0:
            if turns and self._ready[0].weight > room:
                # The turn is a batch that does not fit. The next group begins with it.
                break
            source = self._ready.popleft()
            try:
                turn = source.take_turn(min(room, turn_max))
            except Exception as error:
                self._facts.emit(ActorFailed(error))
                source.fail_all(InternalFailure())
                continue
            room -= sum(envelope.weight for envelope in turn)
            turns.append((source, turn))
        taken = sum(len(turn) for _, turn in turns)
        self.fills_its_share = share < self._limits.group_envelopes_max and taken >= share
        return turns

    async def _commit(self, envelopes: Sequence[Envelope], trail: Trail) -> Report:
        going, replayed = await self._claim([e for e in envelopes if not e.is_over])
        trail.end("claim")
        if not going:
            return Report()
        trail.envelopes = going
        report = await self._transaction.commit(going, trail)
        for envelope in report.aside:
            self.waiting_room.wait_for_lock(envelope)
        self._facts.emit(
            GroupCommitted(
                envelopes=len(going),
                posted=report.posted,
                refused=report.refused,
                replayed=replayed + report.replayed,
                oldest_wait_s=trail.started - min(envelope.enqueued_at for envelope in envelopes),
                duration_s=self._clock() - trail.started,
            )
        )
        return report

    async def _answer(self, report: Report, trail: Trail) -> None:
        """Refresh the cache, then answer, so that a read after the answer sees its effect."""
        trail.begin()
        try:
            await self._refresh(report)
        except Exception as error:
            # The group is committed, so its answers leave. Only the cache may be stale.
            self._facts.emit(ActorFailed(error))
        trail.end("refresh")
        for envelope, failure in report.failures:
            envelope.fail(failure)
        # Most answers cause a new request at once. Answering in slices lets the event loop serve
        # the next group's round trips to PostgreSQL in between.
        for start in range(0, len(report.answers), self._limits.answers_per_tick):
            for envelope, answer in report.answers[start : start + self._limits.answers_per_tick]:
                envelope.settle(answer)
            await asyncio.sleep(0)
        if self._facts.per_request_facts and trail.envelopes:
            self._emit_per_request_facts(report, trail)

    def _emit_per_request_facts(self, report: Report, trail: Trail) -> None:
        for about in report.posted_abouts:
            self._facts.emit(TransferPosted(about))
        self._facts.emit(
            GroupTraced(
                requests=[envelope.origin.traceparent for envelope in trail.envelopes],
                posted=report.posted,
                refused=report.refused,
                replayed=report.replayed,
                retries=trail.retries,
                stages=trail.stages,
            )
        )

    async def _claim(self, envelopes: Sequence[Envelope]) -> tuple[list[Envelope], int]:
        """Returns the envelopes for the transaction, and the number answered with a replay."""
        asked = [e for e in envelopes if e.key is not None and not e.claim_settled]
        claims = await self._replays.claim([e.key for e in asked if e.key is not None])
        leaving: set[int] = set()
        replayed = 0
        for envelope, claim in zip(asked, claims, strict=True):
            if isinstance(claim, Replay):
                replayed += 1
                leaving.add(id(envelope))
                envelope.settle(self._answer_from(claim, envelope))
            elif claim is Claim.BUSY:
                leaving.add(id(envelope))
                self.waiting_room.wait_for_claim(envelope)
        if asked:
            busy = len(leaving) - replayed
            unknown = claims.count(Claim.UNKNOWN)
            self._facts.emit(
                KeysClaimed(len(asked) - len(leaving) - unknown, replayed, busy, unknown)
            )
        return [e for e in envelopes if id(e) not in leaving], replayed

    def _answer_from(self, replay: Replay, envelope: Envelope) -> Answer:
        if not envelope.fingerprint.matches(replay.fingerprint):
            return self._renderer.answer(envelope, key_reused())
        envelope.stored_fingerprint = replay.fingerprint
        return Answer(replay.status, replay.body, replayed=True)

    def _database_time(self, report: Report) -> datetime:
        """The time of the database, or a later one."""
        assert report.at is not None
        return report.at + timedelta(seconds=self._clock() - report.asked_at)

    async def _refresh(self, report: Report) -> None:
        """Write snapshots and replays to the cache, and release claims."""
        replays = [
            (e.key, Replay(answer.status, e.stored_fingerprint, answer.body))
            for e, answer in report.answers
            if e.key is not None
            and answer.kept
            and len(answer.body) <= self._limits.replay_bytes_max
        ]
        # A command that failed may be repeated at once. A command in doubt keeps its claim, which
        # delays a repetition until the claim expires.
        releases = [
            (e.key, self._replays.claim_value)
            for e, _ in report.failures
            if e.key is not None and not e.in_doubt
        ]
        # Without a replay in Redis a repetition asks PostgreSQL; the release lets it do so at once.
        releases += [
            (e.key, self._replays.claim_value)
            for e, answer in report.answers
            if e.key is not None
            and (not answer.kept or len(answer.body) > self._limits.replay_bytes_max)
        ]
        snapshots: list[Snapshot] = []
        for wallet in report.wallets.values():
            body = b""
            if wallet.hold_expires_at is None or self._wallets.is_storable(
                wallet.hold_expires_at, self._database_time(report)
            ):
                body = self._renderer.wallet(wallet)
            snapshots.append(Snapshot(wallet.id, wallet.version, body))
            if len(snapshots) == self._limits.refresh_snapshots_max:
                await self._wallets.refresh(snapshots, (), ())
                snapshots = []
        await self._wallets.refresh(snapshots, replays, releases)
