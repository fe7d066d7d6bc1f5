"""Messages of a distributed run: workers get the worlds and send back their histories."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from gevent import getcurrent, sleep
from gevent.event import Event
from locust.runners import STATE_MISSING, STATE_STOPPING, MasterRunner, WorkerRunner

from loadtest.proof.history import History
from loadtest.proof.record import State
from loadtest.world import World

_WORLDS = "transferd-worlds"
_COLLECT = "transferd-collect"
_CHUNK = "transferd-chunk"
_DONE = "transferd-done"
# A field of the report that Locust's workers send every few seconds; the page shows the sum.
_VIOLATIONS = "transferd-violations"
# The master waits this long for the histories, after the stop timeout of the users.
_REPORTS_TIMEOUT_S = 60.0


class WorkerSide:
    """In a worker: receives the worlds, and sends the histories when the users have stopped."""

    def __init__(
        self,
        runner: WorkerRunner,
        begin: Callable[[list[World]], None],
        violations: Callable[[], int],
        end: Callable[[], tuple[list[History], float] | None],
    ) -> None:
        self._runner = runner
        self._begin = begin
        # The world of each ledger, in a run whose histories the master still waits for.
        self._worlds: list[World] = []
        self._end = end
        events: Any = runner.environment.events
        events.report_to_master.add_listener(
            lambda client_id, data: data.update({_VIOLATIONS: violations()})
        )
        runner.register_message(_WORLDS, self._take_worlds)
        runner.register_message(_COLLECT, self._stop)

    def start(self) -> None:
        """Begin a run: Locust's spawn message has arrived, and the worlds before it."""
        if self._worlds:
            self._begin(self._worlds)

    def report(self) -> None:
        """Send the histories, once for each run. None is sent if no users were started."""
        if not self._worlds:
            return
        run, self._worlds = self._worlds[0].run, []
        histories, cpu_s = self._end() or ([], 0.0)
        # The verdict needs the statistics since the last report, before the next one is due.
        data: dict[str, Any] = {}
        events: Any = self._runner.environment.events
        events.report_to_master.fire(client_id=self._runner.client_id, data=data)
        self._runner.send_message("stats", data)
        for place, history in enumerate(histories):
            of = {"run": run, "place": place}
            for chunk in history.chunks():
                self._runner.send_message(_CHUNK, of | {"acknowledged": chunk})
            for chunk in history.hold_chunks():
                self._runner.send_message(_CHUNK, of | {"hold_changes": chunk})
        messages = [history.to_message() for history in histories]
        done = {"run": run, "histories": messages, "cpu_s": cpu_s}
        self._runner.send_message(_DONE, done)
        # The users have stopped, so Locust need not wait before the next run.
        self._runner.environment.stop_timeout = 0.0

    def _take_worlds(self, msg: Any, **_: Any) -> None:
        self._worlds = [
            World(**data | {"start": {id: State(*state) for id, state in data["start"].items()}})
            for data in msg.data["worlds"]
        ]

    def _stop(self, **_: Any) -> None:
        # Locust does not stop users that are being started. It reports them when they have started,
        # and a master that receives this report after the run makes the worker quit.
        if self._runner.spawning_greenlet is not None:
            self._runner.spawning_greenlet.join()
        # `stop` fires the event that calls `report`, unless the worker has no users.
        self._runner.stop()
        self.report()


class MasterSide:
    """In the master: sends the worlds, and collects the histories of the workers."""

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._waiting_for: set[str] = set()
        self._all_done = Event()
        self._worlds: Sequence[World] = ()
        self._histories: Sequence[History] = ()
        self.cpu_s = 0.0
        self._violations: dict[str, int] = {}
        runner.register_message(_CHUNK, self._take_chunk)
        runner.register_message(_DONE, self._take_history)
        events: Any = runner.environment.events
        events.worker_connect.add_listener(self._take_worker)
        events.worker_report.add_listener(self._take_report)

    def begin(self, worlds: Sequence[World], histories: Sequence[History]) -> None:
        """Send the worlds to each worker before Locust starts the users there."""
        self._worlds, self._histories, self.cpu_s = worlds, histories, 0.0
        self._violations.clear()
        self._all_done.clear()
        self._waiting_for = set(self._runner.clients)
        for client_id in self._waiting_for:
            self._send_worlds(client_id)

    def collect(self, stop_timeout_s: float) -> set[str]:
        """Stop the users and collect all histories; returns the workers that did not report."""
        # In the state "running" Locust moves the users of a worker that quits to other workers.
        self._runner.update_state(STATE_STOPPING)
        # Locust kills the shape after this event. Kill it now, so that no message that starts users
        # follows the collect message.
        shape = self._runner.shape_greenlet
        if shape is not None and shape is not getcurrent():
            shape.kill(block=True)
            # Its last messages are sent by other greenlets, which run during this pause.
            sleep(0.001)
        deadline_s = time.monotonic() + stop_timeout_s + _REPORTS_TIMEOUT_S
        if self._waiting_for:
            self._runner.send_message(_COLLECT)
        while self._waiting_for and time.monotonic() < deadline_s:
            self._all_done.wait(1.0)
            alive = {
                name
                for name, client in self._runner.clients.items()
                if client.state != STATE_MISSING
            }
            if not self._waiting_for & alive:
                break
        self._worlds = ()
        return self._waiting_for

    @property
    def violations(self) -> int:
        """Number of violations that the workers have reported so far."""
        return sum(self._violations.values())

    def _take_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        self._violations[client_id] = data.get(_VIOLATIONS, 0)

    def _take_worker(self, client_id: str, **_: Any) -> None:
        # A worker that connects during a run takes part in it.
        if self._worlds and client_id not in self._waiting_for:
            self._waiting_for.add(client_id)
            self._send_worlds(client_id)

    def _send_worlds(self, client_id: str) -> None:
        self._runner.send_message(
            _WORLDS, {"worlds": [asdict(world) for world in self._worlds]}, client_id
        )

    def _is_of_the_run(self, msg: Any) -> bool:
        return bool(self._worlds) and msg.data["run"] == self._worlds[0].run

    def _take_chunk(self, msg: Any, **_: Any) -> None:
        if self._is_of_the_run(msg):
            history = self._histories[msg.data["place"]]
            history.acknowledged += msg.data.get("acknowledged", b"")
            history.hold_changes += msg.data.get("hold_changes", b"")

    def _take_history(self, msg: Any, **_: Any) -> None:
        if not self._is_of_the_run(msg):
            return
        # Empty if the worker had no users.
        for history, message in zip(self._histories, msg.data["histories"], strict=False):
            history.merge_message(message)
        self.cpu_s += msg.data["cpu_s"]
        self._waiting_for.discard(msg.node_id)
        if not self._waiting_for:
            self._all_done.set()
