"""The routes that are added to Locust's web UI: the tab "Service", and /metrics."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request, send_from_directory
from locust.web import WebUI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from loadtest.dashboards.figures import FIGURES
from loadtest.dashboards.server_side import EVERY_S, ServerSide

_STATIC = Path(__file__).with_name("static")
# Relative, because a proxy may serve the UI below a path that Locust does not know.
_SCRIPT = b'<script src="./service/static/frame.js" defer></script>'
_COLUMNS = [
    {"figure": each.name, "title": each.title, "unit": each.unit, "digits": each.digits}
    for each in FIGURES
    if each.title
]


def add_tab(
    web_ui: WebUI,
    server_side: ServerSide,
    status: Callable[[], Mapping[str, Any]],
    registry: CollectorRegistry,
) -> None:
    """Add the routes, before the UI serves its first request.

    `status` returns `scenario`, `shape`, `state`, `violations` (their number) and `verdict` (a
    line, or None before the end).
    """
    app = web_ui.app
    assert app is not None
    # Locust shows an empty tab. The script fills it.
    tabs = web_ui.template_args.setdefault("extendedTabs", [])
    tabs.append({"title": "Service", "key": "service"})

    def page() -> Response:
        return send_from_directory(_STATIC, "service.html")

    def data() -> Response:
        since_s = request.args.get("since", 0.0, type=float)
        return jsonify(
            every_s=EVERY_S,
            has_urls=bool(server_side.urls),
            status=status(),
            columns=_COLUMNS,
            targets=server_side.states(),
            rows=[row for row in server_side.rows if row["at_s"] > since_s],
        )

    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    # Below the path of the UI. Like Locust's own static files, these need no login.
    blueprint = Blueprint(
        "transferd",
        __name__,
        url_prefix=app.blueprints["locust"].url_prefix,
        static_folder=_STATIC,
        static_url_path="/service/static",
    )
    # Locust's function has no types.
    guarded: Any = web_ui.auth_required_if_enabled
    for path, view in {"/service": page, "/service/data": data, "/metrics": metrics}.items():
        blueprint.add_url_rule(path, view_func=guarded(view))
    app.register_blueprint(blueprint)
    app.after_request(_with_script)


def _with_script(response: Response) -> Response:
    """Add the script to Locust's own page."""
    if request.endpoint == "locust.index" and response.mimetype == "text/html":
        response.set_data(response.get_data().replace(b"</body>", _SCRIPT + b"</body>", 1))
    return response
