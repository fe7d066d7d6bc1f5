"""Routes of our own in Locust's web UI."""

from collections.abc import Callable, Mapping
from pathlib import Path

from flask import Blueprint, Flask, Response
from locust.web import WebUI

View = Callable[[], Response]


def add_routes(
    web_ui: WebUI, app: Flask, name: str, views: Mapping[str, View], *, static: Path | None = None
) -> None:
    """Serve views by path, below the path and behind the login of the UI, if it has them.

    Files of `static` are served below /service/static. Like Locust's own they need no login.
    """
    blueprint = Blueprint(
        name,
        __name__,
        url_prefix=app.blueprints["locust"].url_prefix,
        static_folder=static,
        static_url_path="/service/static" if static else None,
    )
    guarded = _guard(web_ui)
    for path, view in views.items():
        blueprint.add_url_rule(path, view_func=guarded(view))
    app.register_blueprint(blueprint)


def _guard(web_ui: WebUI) -> Callable[[View], View]:
    # Locust's function says nothing of its types.
    return web_ui.auth_required_if_enabled
