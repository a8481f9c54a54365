"""Two locks that no kill -9 leaves behind.

``holder.lock``  who may start, repair and stop the server: one process at a time, for as long as it lives.
``server.lock``  inherited by PostgreSQL and every process it forks: as long as one of them lives, it is taken, whatever
                 postmaster.pid says, and wherever (another container) that process runs.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path

from shipworthy.adapters.embedded.postgres_errors import InUse, told
from shipworthy.adapters.embedded.postgres_files import SMALL_FILE_BYTES_MAX
from shipworthy.adapters.embedded.postgres_processes import wait_until


class Lock:
    """An advisory lock on a file; released by ``release``, or by the kernel when the last owner has died."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def take(place: Path) -> Lock | None:
    """The lock, or None when it's taken."""
    with told(place):
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
    return Lock(descriptor)


def take_within(place: Path, seconds: float, clock: Callable[[], float]) -> Lock | None:
    """The lock as soon as it's free: a process that is on its way out still has it for a moment."""
    taken: list[Lock] = []

    def tried() -> bool:
        lock = take(place)
        taken.extend([lock] if lock else [])
        return lock is not None

    wait_until(tried, seconds, clock)
    return taken[0] if taken else None


def hold(place: Path, what: Path) -> Lock:
    """The holder's lock with our pid in it; ``InUse`` names the one that has it."""
    lock = take(place)
    if lock is None:
        raise InUse(
            f"The database in {what} is in use by {_holder(place)}.",
            "Stop that one first, or give this server a store.path of its own. "
            "Commands that only read find the running database by themselves.",
        )
    try:
        with told(place):
            os.ftruncate(lock.descriptor, 0)
            os.pwrite(lock.descriptor, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
    except BaseException:
        lock.release()
        raise
    return lock


def _holder(place: Path) -> str:
    try:
        content = place.read_bytes()[:SMALL_FILE_BYTES_MAX].decode("utf-8", errors="replace")
    except OSError:
        content = ""
    said = re.fullmatch(r"(\d+) (.*)\n", content)
    if said is None:
        return "a process that has just started"
    pid, node = said.groups()
    if node != os.uname().nodename:
        return f"pid {pid} on {node}"
    return f"pid {pid}" if Path(f"/proc/{pid}").exists() else f"a process that pid {pid} left behind"
