"""Conditional requests: https://www.rfc-editor.org/rfc/rfc9110#section-13."""

import re

from aiohttp import web

from transferd.web.problems import Problem

_TAG = r'(?:W/)?"[^\x00-\x20"\x7f]*"'
# A list may have empty elements (RFC 9110 section 5.6.1), and a tag may have a comma in it.
_TAGS = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
# Strong comparison: W/"w3" never matches. Python refuses to read very long numbers.
_OURS = re.compile(r'"w(0|[1-9][0-9]{0,18})"')


def is_known(request: web.Request, etag: str) -> bool:
    """Whether If-None-Match names the tag (weak comparison, RFC 9110 section 13.1.2)."""
    # Several lines are one list.
    lines = request.headers.getall("If-None-Match", ())
    if not lines:
        return False
    tags = {tag.strip().removeprefix("W/") for line in lines for tag in line.split(",")}
    return etag in tags or "*" in tags


def versions_allowed(request: web.Request) -> frozenset[int] | None:
    """The versions that If-Match names (RFC 9110 section 13.1.1); None if it allows all.

    `*` is any wallet that exists. Raises Problem `malformed-request`.
    """
    # Several lines are one list.
    lines = request.headers.getall("If-Match", ())
    text = ",".join(lines).strip(" \t")
    if not lines or text == "*":
        return None
    if _TAGS.fullmatch(text) is None:
        raise Problem("malformed-request", 'If-Match is neither * nor a list of tags like "w3".')
    tags = re.findall(_TAG, text)
    return frozenset(int(ours[1]) for tag in tags if (ours := _OURS.fullmatch(tag)) is not None)
