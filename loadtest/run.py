"""The phases of a run: seed, run the users, collect their histories, audit, judge."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from gevent import GreenletExit
from locust import User
from locust.exception import StopTest
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtest.api import ServiceError
from loadtest.audit import Audit, total
from loadtest.checked_user import CheckedUser
from loadtest.cpu_times import CpuTimes
from loadtest.dashboards.server_side import ServerSide
from loadtest.each_ledger import audited, begun, seeded, violations_of
from loadtest.gathering import MasterSide, WorkerSide
from loadtest.options import Options
from loadtest.proof.history import History
from loadtest.proof.violations import Violation
from loadtest.report import Report, calls_of, write
from loadtest.scenarios import SCENARIOS, has_tasks
from loadtest.session import Session
from loadtest.shapes import SHAPES, LimitSeeker, users_at
from loadtest.verdict import ANSWERS_MIN, NOT_RUN, Calls, Level, Verdict, levels_of
from loadtest.world import World

_log = logging.getLogger(__name__)

Phase = Literal["ready", "seeding", "running", "auditing", "finished"]


class Run:
    """One object per process, for all its runs. Locust's events call its listeners."""

    def __init__(self, environment: Any, server_side: ServerSide) -> None:
        self.environment = environment
        self.server_side = server_side
        self.state: Phase = "ready"
        # The API keys and the file of the verdict stay fixed: a request to the page must not send
        # a key to another host or write to another file.
        self._fixed = Options.of(environment)
        self.options = self._fixed
        self.verdict: Verdict | None = None
        # One for each ledger.
        self._sessions: list[Session] = []
        self._trouble = ""
        self._began_s = 0.0
        self._cpu = CpuTimes()
        self._users_most = 0
        self._seeker: LimitSeeker | None = None
        self._runner = environment.runner
        self._master = MasterSide(self._runner) if isinstance(self._runner, MasterRunner) else None
        self._worker = (
            WorkerSide(
                self._runner,
                self._begin_session,
                lambda: self.violations,
                self._end_session,
            )
            if isinstance(self._runner, WorkerRunner)
            else None
        )
        events = environment.events
        events.test_start.add_listener(self._on_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        if self._worker is not None:
            # Only the master judges the run; Locust would exit with 1 after any failed request.
            environment.process_exit_code = 0

    @property
    def violations(self) -> int:
        """Number of violations so far; the audit can add more."""
        if self._master is not None and self.state == "running":
            return self._master.violations
        return sum(each.history.violations.total for each in self._sessions)

    def status(self) -> dict[str, Any]:
        """State of the run, for the tab in the web page."""
        return {
            "scenario": self.options.scenario,
            "shape": self.options.shape,
            "ledgers": self.options.ledgers,
            "state": self.state,
            "seconds": round(self.elapsed_s, 1),
            "violations": self.violations,
            "verdict": self.verdict.line if self.verdict else None,
        }

    def info(self) -> dict[str, str]:
        """Labels of the info metric, for Prometheus."""
        return {"scenario": self.options.scenario, "shape": self.options.shape}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the users started, without seeding."""
        return time.monotonic() - self._began_s if self.state == "running" else 0.0

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        """Locust calls it each second. Users, spawn rate and personas; None at the end."""
        if self.state in ("ready", "finished"):
            # The first tick of a run precedes its test_start event.
            self.state, self._seeker = "ready", None
            self.options = self._options()
            if self._master is not None and not self._runner.worker_count:
                _log.error("no worker is connected: start the run again when one is")
                return None
        if self.state == "auditing":
            return None
        shape = SHAPES[self.options.shape]
        seconds = self.options.run_time_s or shape.seconds
        elapsed_s = self.elapsed_s
        users = users_at(shape, elapsed_s, self.options.users, seconds)
        if self._seeker is not None and self._seeker.broke(
            elapsed_s / seconds, users or 0, calls_of(self.environment.stats)
        ):
            return None
        if users is None:
            return None
        self._users_most = max(self._users_most, users)
        return users, self.options.spawn_rate, self._personas()

    def _personas(self) -> list[type[User]] | None:
        """Personas of the scenario with their weights; None if the user chose the classes."""
        parsed = self.environment.parsed_options
        if parsed.user_classes:
            return None
        weights = SCENARIOS[self.options.scenario].weights
        chosen = []
        for persona in self.environment.user_classes:
            if persona.__name__ in weights and has_tasks(
                persona.tasks, parsed.tags, parsed.exclude_tags
            ):
                persona.weight = weights[persona.__name__]
                chosen.append(persona)
        return chosen or None

    # Listeners of Locust's events

    def _on_start(self, **_: Any) -> None:
        if self._worker is not None:
            self._worker.start()
            return
        self.state = "seeding"
        self.options = self._options()
        self._trouble, self.verdict, self._sessions = "", None, []
        self._users_most = 0
        # The exit code until there is a verdict.
        self.environment.process_exit_code = NOT_RUN
        try:
            worlds = seeded(self.options, self._fixed.host)
        except GreenletExit:
            # The run was stopped during seeding.
            self.state = "ready"
            raise
        except Exception as error:
            # Locust only logs other exceptions of a listener, and continues.
            self._trouble = _sentence(error)
            self._judge([])
            raise StopTest(self._trouble) from None
        self._begin_session(worlds)
        if self._master is not None:
            self._master.begin(worlds, [each.history for each in self._sessions])
        shape = SHAPES[self.options.shape]
        self._seeker = (
            LimitSeeker(lambda calls: self._levels(calls)[0]) if shape.seeks_limit else None
        )

    def _on_stopping(self, **_: Any) -> None:
        if self._master is not None and self.state == "running":
            missing = self._master.collect(self.environment.stop_timeout)
            if missing:
                self._trouble = (
                    f"{len(missing)} of the workers ended without a report, so their answers are"
                    " unknown"
                )

    def _on_stop(self, **_: Any) -> None:
        if self._worker is not None:
            self._worker.report()
        elif self.state == "running":
            self._users_most = max(self._users_most, 1)
            self._finish()

    def _on_quitting(self, **_: Any) -> None:
        """Locust quits during a run: stop and judge the run."""
        if self.state != "running":
            return
        if isinstance(self._runner, LocalRunner | WorkerRunner):
            self._runner.stop()
        else:
            self._runner.stop(send_stop_to_client=False)

    # The steps

    def _options(self) -> Options:
        """The options of the page; API keys and file of the verdict from the command line."""
        options = Options.of(self.environment)
        if self._worker is not None:
            return options
        fixed = self._fixed
        return replace(
            options, api_key=fixed.api_key, keys_file=fixed.keys_file, verdict=fixed.verdict
        )

    def _begin_session(self, worlds: Sequence[World]) -> None:
        """Called in each process before its users start."""
        self.options = self._options()
        process = str(getattr(self._runner, "worker_index", "m"))
        self._sessions = begun(self.options, worlds, _log_violation, process)
        CheckedUser.sessions = self._sessions
        self._cpu = CpuTimes()
        self._began_s = time.monotonic()
        self.state = "running"
        self.server_side.start_run()

    def _end_session(self) -> tuple[list[History], float] | None:
        if self.state != "running":
            return None
        self.state = "finished"
        for session in self._sessions:
            session.is_over = True
        return [session.history for session in self._sessions], self._cpu.own_s

    def _finish(self) -> None:
        seconds = self.elapsed_s
        self.state = "auditing"
        audits: list[Audit] = []
        # Before the audit, because its requests would be counted.
        server = self.server_side.summary()
        cpu = self._cpu.shares(self._master.cpu_s if self._master is not None else 0.0)
        exceptions = self.environment.runner.exceptions
        if exceptions and not self._trouble:
            first = next(iter(exceptions.values()))
            self._trouble = f"an error in the test itself: {first['msg']}"
        if not self._trouble and self.options.audit != "off":
            audits = self._audit()
        self._judge(audits, seconds, cpu, server)

    def _audit(self) -> list[Audit]:
        """The audit of each ledger; none if one fails."""
        try:
            return audited(self._sessions, self._fixed.host)
        except Exception as error:
            self._trouble = f"the audit: {_sentence(error)}"
            return []

    def _judge(
        self,
        audits: Sequence[Audit],
        seconds: float = 0.0,
        cpu: dict[str, float] | None = None,
        server: dict[str, Any] | None = None,
    ) -> None:
        found = total(audits)
        calls = calls_of(self.environment.stats)
        levels, unchecked = self._levels(calls)
        asked = sum(each.requests for each in calls if each.group == "transfers")
        acknowledged = sum(each.history.acknowledged_total for each in self._sessions)
        if asked > ANSWERS_MIN and not acknowledged and not self._trouble:
            self._trouble = f"not one of {asked:,} transfers was acknowledged"
        if not found.complete:
            audited = "sums" if self.options.audit == "sums" else "sums and statements"
            unchecked.append(f"only {audited} were audited, not every transfer")
        elif self.options.audit == "off":
            unchecked.append("the ledger was not audited")
        self.verdict = Verdict(
            violations_of(self._sessions),
            levels,
            requests=sum(each.requests for each in calls),
            failures=sum(each.failures for each in calls),
            ledgers=self.options.ledgers,
            trouble=self._trouble,
            limit=self._seeker.line if self._seeker is not None and self._seeker.held else "",
            unchecked=unchecked,
        )
        self.state = "finished"
        self.environment.process_exit_code = self.verdict.code
        users = self._users_most
        report = Report(
            self.options, self.verdict, found, calls, seconds, users, cpu or {}, server or {}
        )
        report.ledgers = [
            (session.ledger, each, session.history.violations.total)
            for session, each in zip(self._sessions, audits, strict=False)
            if session.ledger
        ]
        _log.log(logging.ERROR if self.verdict.code else logging.INFO, self.verdict.line)
        if self.options.verdict:
            try:
                write(report, self.options.verdict)
            except OSError as error:
                _log.error(f"the verdict could not be written: {error}")
                self.environment.process_exit_code = self.verdict.code or NOT_RUN

    def _levels(self, calls: Sequence[Calls]) -> tuple[list[Level], list[str]]:
        options = self.options
        return levels_of(calls, options.p95_ms, options.p99_ms, options.error_percent)


def _log_violation(violation: Violation) -> None:
    _log.error(f"{violation.kind}: {violation.text}")


def _sentence(error: Exception) -> str:
    """The message of an expected error; an unexpected one is logged with its traceback."""
    if isinstance(error, ServiceError):
        return str(error)
    _log.exception("an error in the load test itself")
    return f"{type(error).__name__}: {error}"
