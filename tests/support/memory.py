"""Memory: how much processes use, and a directory in it for the files of servers."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MEMORY = Path("/dev/shm")
_PREFIX = "transferd-tests-"
_ROOM_BYTES = 4 * 2**30


def resident_bytes(*pids: int) -> int:
    """The resident memory of these processes, on Linux."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in pids)


@contextmanager
def memory_directory(otherwise: Path) -> Iterator[Path]:
    """A new directory in memory, or `otherwise` where there is no room for one.

    A test's database is three hundred small files. On ext4 one costs some 100 ms of the kernel's
    time: it does not use an inode again that was freed within the last minutes, and looks for
    another among the thousands that are.
    """
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ROOM_BYTES:
        yield otherwise
        return
    _remove_orphans()
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    # PostgreSQL may run as another user.
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _remove_orphans() -> None:
    """What a run that was killed has left would use memory until the machine restarts."""
    for left in _MEMORY.glob(f"{_PREFIX}*"):
        pid = int(left.name.removeprefix(_PREFIX).partition("-")[0])
        if left.stat().st_uid == os.geteuid() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
