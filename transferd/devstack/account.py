"""The user that PostgreSQL runs as: not root, and with access to the files of the server."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path

from transferd.devstack.process import Account, StackError, setpriv


def account_for(data: Path, binaries: Path) -> Account | None:
    """The user to run as: None (the current one), or an unprivileged one if this process is root.

    That is the owner of ``data`` if it exists and is not root's. StackError when the user cannot
    reach ``data`` or ``binaries`` and setpriv, which can give it access, is not installed.
    """
    if os.geteuid() != 0:
        return None
    user = _unprivileged_user(data)
    programs = binaries / "postgres"
    closed = next((path for path in (data, programs) if not _can_reach(path, user)), None)
    if closed is not None and setpriv() is None:
        raise StackError(
            f"PostgreSQL refuses to run as root and its user {user.pw_name} cannot reach {closed}: "
            f"set TRANSFERD_DATA_DIR to a directory that {user.pw_name} can reach, "
            "or install setpriv (util-linux)"
        )
    return Account(user.pw_name, user.pw_uid, user.pw_gid, overrides_modes=closed is not None)


def _unprivileged_user(data: Path) -> pwd.struct_passwd:
    if data.exists() and data.stat().st_uid != 0:
        with suppress(KeyError):
            return pwd.getpwuid(data.stat().st_uid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise StackError("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _can_reach(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether the mode bits let ``user`` through every directory above ``path``."""
    for directory in {*path.parents, *path.resolve().parents}:
        status = directory.stat()
        shift = 6 if status.st_uid == user.pw_uid else 3 if status.st_gid == user.pw_gid else 0
        if not status.st_mode >> shift & 1:
            return False
    return True
