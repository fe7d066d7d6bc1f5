"""Headers that come more than once: one list where HTTP has a list, malformed where it has none.

https://www.rfc-editor.org/rfc/rfc9110#section-5.3
"""

from multidict import CIMultiDictProxy

from transferd.web.problems import Problem

Headers = CIMultiDictProxy[str]


def only_line(headers: Headers, name: str) -> str | None:
    """The value of a header that is no list; None without it. Raises Problem if it is repeated."""
    lines = headers.getall(name, ())
    if len(lines) > 1:
        raise Problem("malformed-request", f"The header {name} was sent more than once.")
    return lines[0] if lines else None


def items_of(headers: Headers, name: str) -> list[str]:
    """The elements of a header that is a list; those that are empty are left out."""
    items = [item.strip(" \t") for line in headers.getall(name, ()) for item in line.split(",")]
    return [item for item in items if item]
