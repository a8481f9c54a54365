"""Which processes live on a data directory: judged by what they are, never by a pid alone.

Why so careful? A pid in postmaster.pid may be nobody's (crash), a zombie's (a parent that doesn't reap), or by now an
unrelated program's. A live one mistaken for dead would be two servers on one data directory; a dead one mistaken for
alive a dead address. What a process is comes from /proc, and enough of it from parts that stay readable in a container
without ptrace rights.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shipworthy.adapters.embedded.postgres_files import read_small
from shipworthy.adapters.embedded.postgres_home import Home

POLL_SECONDS = 0.002
POLL_SECONDS_MAX = 0.05
PROCESSES_MAX = 1 << 22  # the kernel's own limit for pids


@dataclass(frozen=True)
class PidFile:
    """postmaster.pid: what the server says about itself."""

    pid: int
    socket_dir: Path | None
    status: str  # starting, ready, stopping, standby, or empty


@dataclass(frozen=True)
class Process:
    """A living process that isn't a zombie."""

    pid: int
    name: str
    uid: int
    cwd: str  # empty where the kernel doesn't tell
    argv: tuple[str, ...]


def read_pid_file(data: Path) -> PidFile | None:
    """What postmaster.pid says; None when it's missing, empty or garbage."""
    try:
        lines = [line.strip() for line in read_small(data / "postmaster.pid").splitlines()]
    except OSError:
        return None
    lines += [""] * (8 - len(lines))
    if not lines[0].lstrip("-").isdecimal() or not 0 < abs(int(lines[0])) < PROCESSES_MAX:
        return None
    # A single-user backend writes its pid negated.
    return PidFile(abs(int(lines[0])), Path(lines[4]) if lines[4].startswith("/") else None, lines[7])


def look(pid: int) -> Process | None:
    """The living process with this pid; None for none and for a zombie, which is dead."""
    place = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
        argv = tuple(part for part in os.fsdecode((place / "cmdline").read_bytes()).split("\0") if part)
    except OSError:
        return None
    if status["State"].strip()[0] in "ZX":
        return None
    try:
        cwd = os.readlink(place / "cwd")
    except OSError:
        cwd = ""
    return Process(pid, status["Name"].strip(), int(status["Uid"].split()[1]), cwd, argv)


def postmaster(home: Home) -> Process | None:
    """The living postmaster of this home."""
    said = read_pid_file(home.data)
    if said is not None:
        process = look(said.pid)
        if process is not None and _is_postmaster(process, home):
            return process
    # Somebody may have removed postmaster.pid while it runs.
    return next((process for process in members(home) if _is_postmaster(process, home)), None)


def members(home: Home) -> list[Process]:
    """Every living PostgreSQL process of this home: postmaster, its children, orphans, single-user servers."""
    return [
        process
        for pid in os.listdir("/proc")
        if pid.isdecimal() and (process := look(int(pid))) is not None and _is_member(process, home)
    ]


def _is_member(process: Process, home: Home) -> bool:
    if process.name != "postgres" or process.uid != home.account.uid:
        return False
    title = process.argv[0] if process.argv else ""
    return process.cwd == str(home.data) or str(home.data) in process.argv or f": {home.name}: " in title


def _is_postmaster(process: Process, home: Home) -> bool:
    # Children put a title in place of their arguments: "postgres: <cluster_name>: checkpointer". A process that is on its
    # way out has no arguments any more.
    return _is_member(process, home) and bool(process.argv) and not process.argv[0].startswith("postgres:")


def end(processes: list[Process], home: Home, number: signal.Signals) -> None:
    """Signal those of the processes that still are what they were."""
    for process in processes:
        now = look(process.pid)
        if now is not None and _is_member(now, home):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def reap(pid: int) -> None:
    """Bury a child of ours that another object started; none of our business otherwise."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, ProcessLookupError):
        return


def wait_until(condition: Callable[[], bool], seconds: float, clock: Callable[[], float]) -> bool:
    """Whether the condition came true in time; looks often at first, then less often."""
    deadline = clock() + seconds
    pause = POLL_SECONDS
    while not condition():
        if clock() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.2, POLL_SECONDS_MAX)
    return True
