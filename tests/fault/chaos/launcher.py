"""Starts `transferd` for chaos: `python -m tests.fault.chaos.launcher FILE LAYERS serve`.

FILE sets the clock of the process. LAYERS are the layers of protections to remove, separated by
commas; the list is usually empty.

The time of day jumps in the whole process, libraries included: `time.time`, `time.time_ns` and
`now` and `utcnow` of `datetime`. The monotonic clocks, which waits and deadlines use, do not
change, as when an administrator or NTP sets the clock of a machine. libfaketime would move them
too, and with them the event loop.

FILE contains the offset in seconds as a double. It is mapped into memory, so a write moves the
clock at once, and reading the clock needs no system call.
"""

import datetime
import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

# Imported first: the driver compares types in C with the `datetime` of the time of its import,
# which must be the real one.
import asyncpg  # noqa: F401

OFFSET = struct.Struct("d")
_NS = 1_000_000_000


def write_offset(file: Path, seconds: float) -> None:
    """Set the clocks of processes that map this file ahead, or back if `seconds` is negative."""
    # `Path.write_bytes` would truncate first, and SIGBUS kills a process that reads then.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, OFFSET.pack(seconds), 0)
    finally:
        os.close(descriptor)


def skew(file: Path) -> None:
    """Add the offset in the file to the time of day in this process."""
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), OFFSET.size, access=mmap.ACCESS_READ)

    def offset_s() -> float:
        seconds: float = OFFSET.unpack_from(mapped)[0]
        return seconds

    true_time, true_time_ns, true_datetime = time.time, time.time_ns, datetime.datetime

    class IsDatetime(type):
        """`isinstance` accepts real instances, which drivers and parsers create."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true_datetime)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, true_datetime)

    class Skewed(true_datetime, metaclass=IsDatetime):  # type: ignore[valid-type,misc]
        """Creates real instances, because serializers require the exact type."""

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
    """Skew the clock, then import the service, whose modules import `datetime` by name."""
    skew(Path(sys.argv.pop(1)))
    layers = sys.argv.pop(1)
    if layers:
        from tests.fault.chaos.removals import remove

        remove(layers.split(","))
    from transferd.cli import main as transferd

    transferd(prog_name="transferd")


if __name__ == "__main__":
    main()
