"""A tab "Service" in Locust's web UI, with a page of its own at /service."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Response, jsonify, request, send_from_directory
from locust.env import Environment

from loadtest.dashboards.routes import add_routes
from loadtest.dashboards.server_side import EVERY_S, ServerSide

_STATIC = Path(__file__).with_name("static")
# Relative, because a proxy may serve the UI below a path that Locust knows nothing of.
_SCRIPT = b'<script src="./service/static/frame.js" defer></script>'

Status = Callable[[], Mapping[str, Any]]


def add_tab(environment: Environment, server_side: ServerSide, status: Status) -> None:
    """Add the tab, if there is a web UI. Has to be done before the UI serves its first request.

    `status` says how the run goes: `scenario` and `shape` (names), `state` (Locust's word for it),
    `violations` (how many promises were found broken) and, at the end, `verdict` (its last line).
    What is missing or None is not shown.
    """
    web_ui = environment.web_ui
    if web_ui is None or web_ui.app is None:
        return
    # Locust's page has room for a tab without content, into which the script puts ours.
    tabs = web_ui.template_args.setdefault("extendedTabs", [])
    tabs.append({"title": "Service", "key": "service"})

    def page() -> Response:
        return send_from_directory(_STATIC, "service.html")

    def data() -> Response:
        return jsonify(
            now_s=time.time(),
            every_s=EVERY_S,
            has_urls=server_side.has_urls,
            status=dict(status()),
            rows=server_side.latest(),
            points=server_side.points(request.args.get("since", 0.0, type=float)),
        )

    views = {"/service": page, "/service/data": data}
    add_routes(web_ui, web_ui.app, "transferd_service", views, static=_STATIC)
    web_ui.app.after_request(_with_script)


def _with_script(response: Response) -> Response:
    """Let Locust's own page, and no other, load the script that shows the tab."""
    if request.endpoint == "locust.index" and response.mimetype == "text/html":
        response.set_data(response.get_data().replace(b"</body>", _SCRIPT + b"</body>", 1))
    return response
