"""The headers of every answer, also of answers made by aiohttp."""

from multidict import CIMultiDict

# Security headers, the same as in nginx/headers.conf for the answers of Nginx itself; a test
# compares them. /docs is Swagger UI, which needs inline styles and data URLs for icons. `Server`
# has no version, because that would only help attackers.
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
# No cache stores an answer unless the route allows it.
CACHING = "no-store"


def complete(headers: CIMultiDict[str]) -> None:
    """Add the common headers. Other code sets none of them except `Cache-Control`."""
    headers.extend(COMMON)
    headers.setdefault("Cache-Control", CACHING)
