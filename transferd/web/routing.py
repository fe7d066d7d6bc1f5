"""Routes: from the method and the path of a request to its handler."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from transferd.web.calls import Call
from transferd.web.problems import Problem
from transferd.web.replies import Reply
from transferd.web.request import Request

Handler = Callable[[Call], Awaitable[Reply]]

# The template of a request whose path or method no route has.
UNMATCHED = "unmatched"
_PARAMETER = re.compile(r"{([a-z_]+)}")
# A path without escapes, dots and query, which needs no parsing.
_PLAIN = re.compile(r"/[A-Za-z0-9_/-]*")
_NO_VALUES: Mapping[str, str] = {}


class Route(NamedTuple):
    """A method on the paths of one template."""

    method: str
    template: str
    handler: Handler


class Routes:
    """Finds routes. A path without parameters comes before a template that matches it too."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        # By the first segment of the path.
        self._patterns: dict[str, list[tuple[re.Pattern[str], dict[str, Route]]]] = {}
        for template, methods in _by_template(routes).items():
            if "{" in template:
                first = template.split("/")[1]
                self._patterns.setdefault(first, []).append((_pattern_of(template), methods))
            else:
                self._fixed[template] = methods

    def find(self, request: Request) -> tuple[Route, Mapping[str, str]]:
        """The route of a request and the values of its parameters.

        Raises Problem `malformed-request`, `not-found` or `method-not-allowed`.
        """
        if request.is_malformed:
            raise Problem("malformed-request", closes=True)
        # The path as it was sent; most have neither a query nor escapes.
        methods = self._fixed.get(request.target)
        values = _NO_VALUES
        if methods is None:
            if _PLAIN.fullmatch(request.target) is not None:
                path = request.target
            else:
                # Decoded except for %2F and %25: an escaped slash does not separate segments.
                path = request.url.path_safe
                methods = self._fixed.get(path)
            if methods is None:
                methods, values = self._match(path)
        route = methods.get(request.method)
        if route is None:
            allow = ",".join(sorted(methods))
            raise Problem("method-not-allowed", headers={"Allow": allow})
        return route, values

    def _match(self, path: str) -> tuple[dict[str, Route], Mapping[str, str]]:
        first = path[1:].partition("/")[0]
        for pattern, methods in self._patterns.get(first, ()):
            if (match := pattern.fullmatch(path)) is not None:
                return methods, {name: _decoded(value) for name, value in match.groupdict().items()}
        raise Problem("not-found")


def _by_template(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    """The routes by template and method. RFC 9110 section 9.3.2: HEAD is GET without the body."""
    found: dict[str, dict[str, Route]] = {}
    for route in routes:
        methods = found.setdefault(route.template, {})
        methods[route.method] = route
        if route.method == "GET":
            methods["HEAD"] = route
    return found


def _pattern_of(template: str) -> re.Pattern[str]:
    # Only a key may hold slashes.
    return re.compile(
        _PARAMETER.sub(
            lambda match: f"(?P<{match[1]}>{'.+' if match[1] == 'key' else '[^{}/]+'})", template
        )
    )


def _decoded(value: str) -> str:
    return value.replace("%2F", "/").replace("%25", "%") if "%" in value else value
