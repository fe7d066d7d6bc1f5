"""Request headers: repeated ones, lists, and conditions.

A repeated header is one list where HTTP has a list, and malformed where it has none:
https://www.rfc-editor.org/rfc/rfc9110#section-5.3. Conditions: section 13 of the same.
"""

import re

from multidict import CIMultiDictProxy

from transferd.web.problems import Problem
from transferd.web.request import Request

_TAG = r'(?:W/)?"[^\x00-\x20"\x7f]*"'
# A list may have empty elements (RFC 9110 section 5.6.1), and a tag may have a comma in it.
_TAG_LIST = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
# Strong comparison: W/"w3" never matches. Python refuses to read very long numbers.
_OWN_TAG = re.compile(r'"w(0|[1-9][0-9]{0,18})"')

Headers = CIMultiDictProxy[str]


def only_line(headers: Headers, name: str) -> str | None:
    """The value of a header that is no list; None without it. Raises Problem if it is repeated."""
    lines = headers.getall(name, ())
    if len(lines) > 1:
        raise Problem("malformed-request", f"The header {name} was sent more than once.")
    return lines[0] if lines else None


def items_of(headers: Headers, name: str) -> list[str]:
    """The elements of a header that is a list, without the empty ones."""
    items = [item.strip(" \t") for line in headers.getall(name, ()) for item in line.split(",")]
    return [item for item in items if item]


def is_known(request: Request, etag: str) -> bool:
    """Whether If-None-Match names the tag (weak comparison, RFC 9110 section 13.1.2)."""
    # Several lines are one list.
    lines = request.headers.getall("If-None-Match", ())
    if not lines:
        return False
    tags = {tag.strip().removeprefix("W/") for line in lines for tag in line.split(",")}
    return etag in tags or "*" in tags


def versions_allowed(request: Request) -> frozenset[int] | None:
    """The versions that If-Match names (RFC 9110 section 13.1.1); None if it allows all.

    `*` is any wallet that exists. Raises Problem `malformed-request`.
    """
    # Several lines are one list.
    lines = request.headers.getall("If-Match", ())
    text = ",".join(lines).strip(" \t")
    if not lines or text == "*":
        return None
    if _TAG_LIST.fullmatch(text) is None:
        raise Problem("malformed-request", 'If-Match is neither * nor a list of tags like "w3".')
    tags = re.findall(_TAG, text)
    return frozenset(int(ours[1]) for tag in tags if (ours := _OWN_TAG.fullmatch(tag)) is not None)
