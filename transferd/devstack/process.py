"""One private server process: started, watched, paused, and ended together with its children.

Only ``subprocess`` and ``/proc`` are used, never asyncio's child processes: those belong to the
event loop that started them, but the loop of one test may start a server that the loop of another
test kills.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

# A start takes tenths of a second. More frequent polling would only take CPU time from it.
POLL_S = 0.02
# Only a process stuck in the kernel (a dead disk) outlives SIGKILL for this long.
KILL_TIMEOUT_S = 10.0

# Runs between setpriv and the server. If the parent died before the death signal was armed, the
# signal never comes, so an orphaned child ends here.
ORPHAN_CHECK = '[ "$PPID" = "$0" ] && exec "$@"'


class StackError(Exception):
    """A private server is not installed or has failed. The message is one line."""


class Account(NamedTuple):
    """The unprivileged user that a server runs as if this process is root."""

    name: str
    uid: int
    gid: int
    overrides_modes: (
        bool  # needs CAP_DAC_OVERRIDE to reach its files below a directory closed to it
    )


class Process(NamedTuple):
    """A row of the process table; ``started`` distinguishes processes that reuse a pid."""

    pid: int
    parent: int
    group: int
    state: str
    started: str

    @property
    def alive(self) -> bool:
        """Whether the process runs. A zombie does not, and remains if init never reaps it."""
        return self.state not in ("Z", "X")


def process_table() -> dict[int, Process]:
    """All visible processes, by pid."""
    if sys.platform != "linux":
        return _process_table_from_ps()
    table: dict[int, Process] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):  # ended in the meantime
                # The name may contain spaces and parentheses: split after the last parenthesis.
                fields = (
                    Path("/proc", entry, "stat").read_text("latin-1").rpartition(")")[2].split()
                )
                pid = int(entry)
                table[pid] = Process(pid, int(fields[1]), int(fields[2]), fields[0], fields[19])
    return table


def _process_table_from_ps() -> dict[int, Process]:
    table: dict[int, Process] = {}
    listing = output_of("ps", "-A", "-o", "pid=,ppid=,pgid=,stat=,lstart=") or ""
    for line in listing.splitlines():
        pid, parent, group, state, started = line.split(None, 4)
        table[int(pid)] = Process(int(pid), int(parent), int(group), state[0], started)
    return table


def process_tree(root: int) -> list[Process]:
    """The living processes that are ``root``, descend from it or are in its process group."""
    table = process_table()
    members = {pid for pid, process in table.items() if root in (pid, process.group)}
    while True:
        children = {pid for pid, process in table.items() if process.parent in members} - members
        if not children:
            return [table[pid] for pid in sorted(members) if table[pid].alive]
        members |= children


def send_signal(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to each of ``processes``. One that has already ended is not an error."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def wait_until_gone(processes: Iterable[Process], timeout_s: float = KILL_TIMEOUT_S) -> None:
    """Return when all of ``processes`` are dead. StackError if one is alive at the timeout."""
    awaited = {(process.pid, process.started) for process in processes}
    deadline = asyncio.get_running_loop().time() + timeout_s
    while awaited:
        alive = {(row.pid, row.started) for row in process_table().values() if row.alive}
        awaited &= alive
        if awaited and asyncio.get_running_loop().time() > deadline:
            pids = ", ".join(str(pid) for pid, _ in sorted(awaited))
            raise StackError(f"process {pids} did not end within {timeout_s:g} s of SIGKILL")
        if awaited:
            await asyncio.sleep(POLL_S)


class Child:
    """A process that this process started, with all its descendants."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    def __repr__(self) -> str:
        code = self._popen.poll()
        return f"<Child {self.pid} {'running' if code is None else f'ended {code}'}>"

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -N when signal N ended it."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait for the end and return the exit code. Any number of waiters, in any event loop."""
        while (code := self._popen.poll()) is None:
            await _end_of(self.pid)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            os.kill(self.pid, number)

    def pause(self) -> list[Process]:
        """SIGSTOP to the whole tree; returns its members."""
        frozen: list[Process] = []
        while self.exit_code is None:
            tree = process_tree(self.pid)
            fresh = [process for process in tree if process not in frozen and process.state != "T"]
            send_signal(fresh, signal.SIGSTOP)
            seen = {process.pid for process in frozen}
            if seen.issuperset(process.pid for process in tree):
                return tree  # No child was started in the meantime.
            frozen = tree
        return []

    def resume(self) -> None:
        """SIGCONT to the whole tree."""
        if self.exit_code is None:
            send_signal(process_tree(self.pid), signal.SIGCONT)

    def kill_now(self) -> list[Process]:
        """SIGKILL to the whole tree without waiting. Paused first, so that it starts no process."""
        victims = self.pause()
        send_signal(victims, signal.SIGKILL)
        return victims

    async def kill(self) -> None:
        """SIGKILL to the whole tree, and wait until all of it is dead."""
        victims = self.kill_now()
        await self.wait()
        await wait_until_gone(victims)


async def _end_of(pid: int) -> None:
    """Return when ``pid`` may have ended. The caller checks."""
    if sys.platform != "linux":
        await asyncio.sleep(POLL_S)
        return
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # Linux before 5.3, or a sandbox without the call
        await asyncio.sleep(POLL_S)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def launch(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    account: Account | None = None,
    keep_fds: Sequence[int] = (),
    stdin: bytes = b"",
) -> Child:
    """Start ``command`` with its output appended to ``log``; OSError when it cannot be started.

    The child gets its own session: Ctrl-C reaches only this process, which ends the servers in
    order. If setpriv is installed (as on most Linux systems), the kernel kills the child when this
    process dies, even by SIGKILL. In fact it does so when the *thread* that started the child ends:
    start from the main thread.
    """
    switch_user = account is not None and setpriv() is None
    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab"))
        popen = subprocess.Popen(
            [*_guard(account), *map(str, command)],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            pass_fds=keep_fds,
            user=account.uid if account and switch_user else None,
            group=account.gid if account and switch_user else None,
            extra_groups=[] if switch_user else None,
        )
    if popen.stdin is not None:
        # A broken pipe means that the child died early. Its exit code and log give the reason.
        with suppress(BrokenPipeError), popen.stdin:
            popen.stdin.write(stdin)
    return Child(popen)


def _guard(account: Account | None) -> list[str]:
    """The command in front of a server's: become ``account``, and die when the parent dies.

    setpriv sets the death signal *after* it has changed the user, because that change clears it.
    Setting it from Python in the forked child is unsafe in a process with threads.
    """
    tool = setpriv()
    if tool is None:
        return []
    guard = [tool, "--pdeathsig", "KILL"]
    if account is not None:
        guard += ["--reuid", str(account.uid), "--regid", str(account.gid), "--clear-groups"]
        if account.overrides_modes:
            # access(2), which PostgreSQL uses to find its own programs, ignores the capabilities of
            # a user that is not root unless the no_setuid_fixup bit is set.
            guard += ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
            guard += ["--securebits", "+no_setuid_fixup"]
    return [*guard, "--", "/bin/sh", "-c", ORPHAN_CHECK, str(os.getpid())]


@functools.cache
def setpriv() -> str | None:
    """The path of util-linux's setpriv, or None; BusyBox has one without a death signal."""
    tool = shutil.which("setpriv", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    if sys.platform != "linux" or tool is None:
        return None
    probe = output_of(tool, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", ":")
    return None if probe is None else tool


def output_of(*command: str | Path) -> str | None:
    """The output of a command; None if it fails or does not exist."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout if answer.returncode == 0 else None


def clean_environment(*prefixes: str, **additions: str) -> dict[str, str]:
    """This process's environment without variables with ``prefixes``, plus ``additions``.

    Such variables could direct a private server to other files or ports.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return {**kept, **additions}
