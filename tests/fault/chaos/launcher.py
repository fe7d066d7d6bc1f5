"""`transferd` as chaos runs it: `python -m tests.fault.chaos.launcher FILE LAYERS serve`.

FILE moves the clock of the process. LAYERS, separated by commas, are the layers of protections that
it lacks; usually the list is empty.

The whole process sees the jump of the time of day, libraries as well: `time.time`, `time.time_ns`
and the `now`s of `datetime`. The monotonic clocks continue unchanged, as when an administrator or
NTP sets the clock of a machine; waits and deadlines use those. libfaketime would move the event
loop too.

FILE contains the offset in seconds as a double. It is mapped into memory: a write moves the clock
at once, and reading the clock needs no system call.
"""

import datetime
import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

# The driver compares types in C with the `datetime` that it finds at its import: the real one.
import asyncpg  # noqa: F401

OFFSET = struct.Struct("d")
_NS = 1_000_000_000


def write_offset(file: Path, seconds: float) -> None:
    """Set the clocks that read this file this far ahead, or behind if negative."""
    # `Path.write_bytes` truncates first, and SIGBUS kills a process that reads at that moment.
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
        """Accepts the real instances, which drivers and parsers make."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true_datetime)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, true_datetime)

    class Skewed(true_datetime, metaclass=IsDatetime):  # type: ignore[valid-type,misc]
        """Makes real instances, because serializers require the exact type."""

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


def main() -> None:
    """Skew, and import the service afterwards: its modules take `datetime` at their import."""
    skew(Path(sys.argv.pop(1)))
    layers = sys.argv.pop(1)
    if layers:
        from tests.fault.chaos.removals import remove

        remove(layers.split(","))
    from transferd.cli import main as transferd

    transferd(prog_name="transferd")


if __name__ == "__main__":
    main()
