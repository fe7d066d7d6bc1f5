"""Prometheus can scrape Locust: in the web UI, or on a port of its own where there is no UI.

Where the load comes from several processes, only the master knows the figures of all of them.
"""

from collections.abc import Callable, Iterator, Mapping

from flask import Response
from gevent.pywsgi import WSGIServer
from locust.env import Environment
from locust.runners import MasterRunner
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from loadtest.dashboards.client_side import families
from loadtest.dashboards.routes import add_routes

Violations = Callable[[], int]
Info = Callable[[], Mapping[str, str]]


class ClientCollector(Collector):
    """Reads Locust's statistics whenever metrics are asked for."""

    def __init__(self, environment: Environment, violations: Violations, info: Info) -> None:
        self._environment = environment
        self._violations = violations
        self._info = info

    def collect(self) -> Iterator[Metric]:
        """All families, as of now."""
        return families(
            self._environment.stats.entries,
            _users(self._environment),
            violations=self._violations(),
            info=self._info(),
        )


def registry_of(environment: Environment, violations: Violations, info: Info) -> CollectorRegistry:
    """A registry with nothing but the client's figures in it.

    `violations` counts what was found wrong in this run; `info` says what runs: version, scenario.
    """
    registry = CollectorRegistry()
    registry.register(ClientCollector(environment, violations, info))
    return registry


def add_route(environment: Environment, *, violations: Violations, info: Info) -> None:
    """GET /metrics in the web UI, if there is one; behind the login where there is a login."""
    web_ui = environment.web_ui
    if web_ui is None or web_ui.app is None:
        return
    registry = registry_of(environment, violations, info)

    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    add_routes(web_ui, web_ui.app, "transferd_metrics", {"/metrics": metrics})


def serve(
    environment: Environment, port: int, *, violations: Violations, info: Info, host: str = ""
) -> WSGIServer:
    """A server for runs without web UI; it has begun to serve and `stop()` ends it.

    Port 0 takes a free one, `server_port` tells which. OSError if the port is taken.
    """
    app = make_wsgi_app(registry_of(environment, violations, info))
    # A line for each scrape would drown what Locust has to say.
    server = WSGIServer((host, port), app, log=None)
    server.start()
    return server


def _users(environment: Environment) -> Mapping[str, int]:
    runner = environment.runner
    if runner is None:
        return {}
    if isinstance(runner, MasterRunner):
        return runner.reported_user_classes_count
    return runner.user_classes_count
