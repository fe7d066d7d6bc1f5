"""Starts `transferd` for chaos: `python -m tests.fault.chaos.launcher FILE LAYERS serve`.

FILE sets the clock of the process. LAYERS is a file with the layers of protections to remove,
separated by commas; the list is usually empty.

`transferd` is a child of this process, which imports it once: SIGUSR1 kills the child, and SIGHUP
starts another one, which reads LAYERS again. Most of the time of a start is that of the imports.

The time of day jumps in the whole process, libraries included: `time.time`, `time.time_ns` and
`now` and `utcnow` of `datetime`. The monotonic clocks, which waits and deadlines use, do not
change, as when an administrator or NTP sets the clock of a machine. libfaketime would move them
too, and with them the event loop.

FILE contains the offset in seconds as a double. It is mapped into memory, so a write moves the
clock at once, and reading the clock needs no system call.
"""

import ctypes
import datetime
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

# Imported first: the driver compares types in C with the `datetime` of the time of its import,
# which must be the real one.
import asyncpg  # noqa: F401

OFFSET = struct.Struct("d")
_SIGNALS = {signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1
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


def fork_when_asked() -> None:
    """Return in each new child. This process ends when a child ends by itself, with its code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    child = os.fork()
    while child:
        number = signal.sigwait(_SIGNALS)
        if number == signal.SIGUSR1:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        elif number == signal.SIGHUP:
            child = os.fork()
        elif number == signal.SIGTERM:
            os.kill(child, signal.SIGTERM)
        elif (code := _end_of(child)) is not None:
            # A child that a signal has killed counts as failed.
            os._exit(code if code >= 0 else 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _end_of(child: int) -> int | None:
    """The exit code of a child; None if it runs, or was killed by SIGUSR1."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if pid else None


def main() -> None:
    """Skew the clock, then import the service, whose modules import `datetime` by name."""
    skew(Path(sys.argv.pop(1)))
    layers = Path(sys.argv.pop(1))
    from tests.fault.chaos.removals import remove
    from transferd.cli import main as transferd

    fork_when_asked()
    remove(filter(None, layers.read_text().split(",")))
    transferd(prog_name="transferd")


if __name__ == "__main__":
    main()
