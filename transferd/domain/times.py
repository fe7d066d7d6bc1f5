"""Times as text."""

from datetime import datetime
from functools import lru_cache


# All changes of a group have the same time.
@lru_cache(maxsize=64)
def rfc3339(time: datetime) -> str:
    """UTC with microseconds and a Z (RFC 3339 section 5.6)."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
