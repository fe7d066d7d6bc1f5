"""The memory that processes use, and a directory in memory for the files of servers."""

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
    """A new directory in memory, or `otherwise` if memory has too little space.

    The database of a test is three hundred small files. On ext4, creating one database takes about
    100 ms in the kernel: ext4 does not reuse an inode that was freed within the last minutes, and
    searches past the thousands of such inodes.
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
    """Remove directories of killed runs, which would use memory until the machine restarts."""
    for left in _MEMORY.glob(f"{_PREFIX}*"):
        pid = int(left.name.removeprefix(_PREFIX).partition("-")[0])
        if left.stat().st_uid == os.geteuid() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
