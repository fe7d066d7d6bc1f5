"""The headers that every answer carries, whichever part of a process has made it."""

from multidict import CIMultiDict

# What a browser may do with an answer, the same as in nginx/headers.conf, which Nginx puts on what
# it answers itself; a test compares. /docs is Swagger UI from the package's own files, which styles
# itself inline and shows icons as data. `Server` has no version, because that helps attackers only.
COMMON: CIMultiDict[str] = CIMultiDict(
    {
        "Server": "transferd",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; frame-ancestors 'none'",
    }
)
# Balances, secrets and problems are kept by no cache, unless the route says otherwise.
CACHING = "no-store"


def complete(headers: CIMultiDict[str]) -> None:
    """Add the common headers. None of them is set anywhere else, except `Cache-Control`."""
    headers.extend(COMMON)
    headers.setdefault("Cache-Control", CACHING)
