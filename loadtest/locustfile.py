"""The locustfile: users that check each answer, and an audit of the ledger at the end.

locust --locustfile loadtest/locustfile.py --host http://localhost --scenario mixed
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gevent
from gevent.pywsgi import WSGIServer
from locust import LoadTestShape, User, events
from locust.runners import WorkerRunner
from prometheus_client import make_wsgi_app

# Locust adds the folder of this file to the path, but the imports need its parent folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtest.cardholder import Cardholder
from loadtest.dashboards.exporter import ClientSide, registry_of
from loadtest.dashboards.server_side import ServerSide
from loadtest.dashboards.tab import add_tab
from loadtest.options import add_options, take_scenario_from_tags
from loadtest.personas import (
    Attacker,
    Merchant,
    Payroll,
    Reader,
    Shopper,
    Treasurer,
)
from loadtest.run import Run

__all__ = [
    "Attacker",
    "Cardholder",
    "Load",
    "Merchant",
    "Payroll",
    "Reader",
    "Shopper",
    "Treasurer",
]


class Load(LoadTestShape):
    """The shape that --shape names. --users and --run-time apply to it."""

    use_common_options: ClassVar[bool] = True
    run: ClassVar[Run | None] = None

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        """Locust calls it each second."""
        assert self.run is not None
        return self.run.tick()


def _begin(environment: Any, **_: Any) -> None:
    _handle_ctrl_c()
    take_scenario_from_tags(environment.parsed_options)
    options = environment.parsed_options
    server_side = ServerSide([] if is_worker(environment) else options.metrics_url)
    Load.run = run = Run(environment, server_side)
    if is_worker(environment):
        return
    server_side.start()
    registry = registry_of(ClientSide(environment, lambda: run.violations, run.info))
    if environment.web_ui is not None:
        add_tab(environment.web_ui, server_side, run.status, registry)
    if options.metrics_port:
        # No log: a line for each scrape would hide Locust's own lines.
        WSGIServer(("", options.metrics_port), make_wsgi_app(registry), log=None).start()

    def print_verdict(**_: Any) -> None:
        if run.verdict is not None:
            print(f"transferd load test: {run.verdict.line}", file=sys.stderr)

    if options.headless:
        _handle_sigterm(run)
    # After Locust's own tables, so that it is the last line.
    environment.events.quit.add_listener(print_verdict)


def _handle_ctrl_c() -> None:
    """Raise KeyboardInterrupt in the main greenlet.

    By default Python raises it in the greenlet that is running. If that greenlet is a user or
    writes a table, only it ends, and the run continues.
    """
    interrupt = _interrupt_of(gevent.getcurrent())
    gevent.signal_handler(signal.SIGINT, interrupt)


def _handle_sigterm(run: Run) -> None:
    """Handle SIGTERM like Ctrl-C. Locust handles it only after a run with a shape has ended."""
    interrupt = _interrupt_of(gevent.getcurrent())

    def end() -> None:
        if run.state in ("seeding", "running"):
            interrupt()

    gevent.signal_handler(signal.SIGTERM, end)


def _interrupt_of(main: Any) -> Callable[[], object]:
    """A function that raises KeyboardInterrupt in the main greenlet, where Locust handles it."""
    return lambda: gevent.get_hub().loop.run_callback(main.throw, KeyboardInterrupt)


def is_worker(environment: Any) -> bool:
    """Whether this process is a Locust worker."""
    return isinstance(environment.runner, WorkerRunner)


_hooks: Any = events
_hooks.init_command_line_parser.add_listener(add_options)
_hooks.init.add_listener(_begin)
