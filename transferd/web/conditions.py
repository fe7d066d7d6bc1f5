"""Conditional requests: https://www.rfc-editor.org/rfc/rfc9110#section-13."""

from aiohttp import web


def is_known(request: web.Request, etag: str) -> bool:
    """Whether If-None-Match names the tag (weak comparison, RFC 9110 section 13.1.2)."""
    # Several lines are one list.
    lines = request.headers.getall("If-None-Match", ())
    if not lines:
        return False
    tags = {tag.strip().removeprefix("W/") for line in lines for tag in line.split(",")}
    return etag in tags or "*" in tags
