"""The phases of a run: seed, run the users, collect their histories, audit, judge."""

import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal

from gevent import GreenletExit
from locust import User
from locust.exception import StopTest
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtest.api import Api, ServiceError
from loadtest.audit import Audit, audit
from loadtest.checked_user import CheckedUser
from loadtest.cpu_times import CpuTimes
from loadtest.dashboards.server_side import ServerSide
from loadtest.gathering import MasterSide, WorkerSide
from loadtest.options import Options
from loadtest.proof.history import History
from loadtest.proof.violations import Violation
from loadtest.report import Report, calls_of, write
from loadtest.scenarios import SCENARIOS, has_tasks
from loadtest.seeding import Seeding
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
        # The API key and the file of the verdict stay fixed: a request to the page must not send
        # the key to another host or write to another file.
        self._fixed = Options.of(environment)
        self.options = self._fixed
        self.history = History({})
        self.verdict: Verdict | None = None
        self._world: World | None = None
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
        return self.history.violations.total

    def status(self) -> dict[str, Any]:
        """State of the run, for the tab in the web page."""
        return {
            "scenario": self.options.scenario,
            "shape": self.options.shape,
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
        self._trouble, self.verdict = "", None
        self._users_most = 0
        # The exit code until there is a verdict.
        self.environment.process_exit_code = NOT_RUN
        try:
            world = self._seed()
        except GreenletExit:
            # The run was stopped during seeding.
            self.state = "ready"
            raise
        except Exception as error:
            # Locust only logs other exceptions of a listener, and continues.
            self._trouble = _sentence(error)
            self._judge(Audit())
            raise StopTest(self._trouble) from None
        self._begin_session(world)
        if self._master is not None:
            self._master.begin(world, self.history)
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
        """The options of the page; API key and file of the verdict from the command line."""
        options = Options.of(self.environment)
        if self._worker is not None:
            return options
        return replace(options, api_key=self._fixed.api_key, verdict=self._fixed.verdict)

    def _seed(self) -> World:
        options = self.options
        with closing(self._api()) as api:
            return Seeding(api, options.seed_name, options.currency).world(
                f"lt-{secrets.token_hex(4)}",
                options.wallets,
                options.merchants,
                SCENARIOS[options.scenario],
            )

    def _begin_session(self, world: World) -> None:
        """Called in each process before its users start."""
        self.options = self._options()
        self._world = world
        self.history = History({name: number for number, name in enumerate(world.wallets)})
        process = str(getattr(self._runner, "worker_index", "m"))
        CheckedUser.session = Session(self.options, world, self.history, _log_violation, process)
        self._cpu = CpuTimes()
        self._began_s = time.monotonic()
        self.state = "running"
        self.server_side.start_run()

    def _end_session(self) -> tuple[History, float] | None:
        if self.state != "running":
            return None
        self.state = "finished"
        CheckedUser.session.is_over = True
        return self.history, self._cpu.own_s

    def _finish(self) -> None:
        seconds = self.elapsed_s
        self.state = "auditing"
        found = Audit()
        # Before the audit, because its requests would be counted.
        server = self.server_side.summary()
        cpu = self._cpu.shares(self._master.cpu_s if self._master is not None else 0.0)
        exceptions = self.environment.runner.exceptions
        if exceptions and not self._trouble:
            first = next(iter(exceptions.values()))
            self._trouble = f"an error in the test itself: {first['msg']}"
        if not self._trouble and self.options.audit != "off":
            found = self._audit()
        self._judge(found, seconds, cpu, server)

    def _audit(self) -> Audit:
        assert self._world is not None
        only_sums = self.options.audit == "sums"
        try:
            with closing(self._api()) as api:
                return audit(api, self._world, self.history, only_sums=only_sums)
        except Exception as error:
            self._trouble = f"the audit: {_sentence(error)}"
            return Audit()

    def _judge(
        self,
        found: Audit,
        seconds: float = 0.0,
        cpu: dict[str, float] | None = None,
        server: dict[str, Any] | None = None,
    ) -> None:
        violations = self.history.violations
        for violation in found.violations:
            if violations.add(violation):
                _log_violation(violation)
        calls = calls_of(self.environment.stats)
        levels, unchecked = self._levels(calls)
        asked = sum(each.requests for each in calls if each.group == "transfers")
        if asked > ANSWERS_MIN and not self.history.acknowledged_total and not self._trouble:
            self._trouble = f"not one of {asked:,} transfers was acknowledged"
        if not found.complete:
            audited = "sums" if self.options.audit == "sums" else "sums and statements"
            unchecked.append(f"only {audited} were audited, not every transfer")
        elif self.options.audit == "off":
            unchecked.append("the ledger was not audited")
        self.verdict = Verdict(
            violations,
            levels,
            requests=sum(each.requests for each in calls),
            failures=sum(each.failures for each in calls),
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

    def _api(self) -> Api:
        if not self.options.host:
            raise ServiceError("no --host: pass the URL of the service, such as http://localhost")
        options = self.options
        if options.api_key and options.host != self._fixed.host:
            raise ServiceError(
                f"the API key is for {self._fixed.host or 'no host yet'}: to send it to"
                f" {options.host} start Locust with that --host"
            )
        return Api(
            options.host, options.api_key, options.client_timeout_s, insecure=options.insecure
        )


def _log_violation(violation: Violation) -> None:
    _log.error(f"{violation.kind}: {violation.text}")


def _sentence(error: Exception) -> str:
    """The message of an expected error; an unexpected one is logged with its traceback."""
    if isinstance(error, ServiceError):
        return str(error)
    _log.exception("an error in the load test itself")
    return f"{type(error).__name__}: {error}"
