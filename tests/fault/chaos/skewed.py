"""A wall clock that can jump while a process runs.

Everything in the process that asks for the time of day sees the jump, libraries as well:
`time.time`, `time.time_ns` and the `now`s of `datetime`. The monotonic clocks go on as they were,
as they do when an administrator or NTP sets a machine's clock; waits and deadlines hang on those.
That is why this is not done with libfaketime, under which an event loop would jump too.

The offset in seconds is a double in FILE, which is mapped into memory: whoever writes there moves
the clock at once, and asking costs no call of the system.
"""

import datetime
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

# The driver compares types in C with the one that it finds at its import: that must be the real.
import asyncpg  # noqa: F401

OFFSET = struct.Struct("d")
_NS = 1_000_000_000


def write_offset(file: Path, seconds: float) -> None:
    """Make the clocks that read this file run so much ahead, or behind if negative."""
    # Not `Path.write_bytes`: that truncates first, and who reads then is killed by SIGBUS.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, OFFSET.pack(seconds), 0)
    finally:
        os.close(descriptor)


def skew(file: Path) -> None:
    """From now on this process sees the time with the offset in the file."""
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), OFFSET.size, access=mmap.ACCESS_READ)

    def offset_s() -> float:
        seconds: float = OFFSET.unpack_from(mapped)[0]
        return seconds

    true_time, true_time_ns, true_datetime = time.time, time.time_ns, datetime.datetime

    class IsDatetime(type):
        """The real ones, which drivers and parsers make, count as well."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true_datetime)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, true_datetime)

    class Skewed(true_datetime, metaclass=IsDatetime):  # type: ignore[valid-type,misc]
        """Makes real ones, since whoever writes them asks for the exact type."""

        def __new__(cls, *arguments: Any, **options: Any) -> Any:
            return true_datetime(*arguments, **options)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return true_datetime.now(tz) + datetime.timedelta(seconds=offset_s())

        @classmethod
        def utcnow(cls) -> Any:
            now = true_datetime.now(datetime.UTC) + datetime.timedelta(seconds=offset_s())
            return now.replace(tzinfo=None)

    time.time = lambda: true_time() + offset_s()
    time.time_ns = lambda: true_time_ns() + int(offset_s() * _NS)
    datetime.datetime = Skewed  # type: ignore[misc]
