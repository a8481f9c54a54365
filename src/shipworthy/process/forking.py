"""Where workers and the control plane come from: a process that has loaded what they need, and then does nothing but fork.

Why not fork the supervisor? It has a loop, threads and connections, and a fork would copy them half-way. This process has
one thread and no loop, reads no manifest and opens nothing: what it copies are loaded libraries. So a worker that died is
back in a tenth of a second instead of a whole one, and many workers share their memory. It loads while the supervisor
brings PostgreSQL up, and ends with the supervisor.

``python -m shipworthy.process.forking FD``, a SOCK_SEQPACKET. It is asked ``KIND NAME…``, with what the process inherits
beside it, and says ``born PID`` or ``refused WHY``; later, at any time, ``ended PID STATUS``.

What if something that is loaded into every Python here (``sitecustomize``, an agent that measures) has started a thread? A
fork would copy the locks that it holds. Then each process is a new one that loads for itself, ``… KIND NAME FD…``: slower,
and just as good.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple, TextIO

MESSAGE_BYTES_MAX = 4096
FDS_MAX = 8
SHOWN_CHARS_MAX = 15  # what Linux keeps of a process's name
WORKER, CONTROL = "worker", "control"
UNASKED = 0


class Started(NamedTuple):
    """The process, and our end of what we say to it."""

    process: subprocess.Popen[bytes]
    ours: socket.socket

    def end(self) -> None:
        """At once: it holds nothing, and what it forked lives on. May be said twice."""
        self.ours.close()
        self.process.kill()
        self.process.wait()


def start(log: TextIO | None = None) -> Started:
    """Starts one; what it and its children have to say goes to ``log``, None = where ours goes. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "shipworthy.process.forking", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the supervisor, which then says when
            )
        except OSError:
            ours.close()
            raise
    return Started(process, ours)


class Birth(NamedTuple):
    """What a new process is to be."""

    kind: str
    name: str
    fds: tuple[int, ...]

    def live(self) -> None:
        """In the new process: does its work, to its end."""
        os.setsid()
        with contextlib.suppress(OSError):  # only Linux has it; `ps -o comm` and `top` show it
            Path("/proc/self/comm").write_text(f"sw {self.name}"[:SHOWN_CHARS_MAX])
        if self.kind == WORKER:
            from shipworthy.process import worker

            worker.begin(*self.fds)
        else:
            from shipworthy.process import control

            control.begin(*self.fds)


class Forking:
    """Forks as it is asked. ``wait`` returns in each new process what it is to be, and None here when nobody asks."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to wake us
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the supervisor says when, by being gone

    def wait(self) -> Birth | None:
        poll = select.poll()
        for end in (self._asked, self._woken):
            poll.register(end, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._woken.fileno() in ready:
                self._reap()
            if self._asked.fileno() in ready:
                try:
                    said, fds, _, _ = socket.recv_fds(self._asked, MESSAGE_BYTES_MAX, FDS_MAX)
                except ConnectionError:
                    said, fds = b"", []
                if not said:
                    return None
                kind, _, name = said.decode().partition(" ")
                birth = Birth(kind, name, tuple(fds))
                if self._bear(birth):
                    return birth

    def _bear(self, birth: Birth) -> bool:
        """Whether this is the new process."""
        fds = birth.fds
        try:
            pid = os.fork() if _alone() else _spawn(birth)
        except OSError as reason:
            said = f"refused {reason}"
        else:
            if pid == 0:
                self._forget()
                return True
            said = f"born {pid}"
        for fd in fds:
            os.close(fd)
        self._say(said)
        return False

    def _forget(self) -> None:
        """A new process has nothing of ours: neither what wakes us, nor what we ignore."""
        signal.set_wakeup_fd(-1)
        hear_signals()
        for end in (self._asked, self._woken, self._waker):
            end.close()

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(MESSAGE_BYTES_MAX):
                pass
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._say(f"ended {ended[0]} {os.waitstatus_to_exitcode(ended[1])}")

    def _say(self, said: str) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone: the next look says so too
            self._asked.send(said.encode()[:MESSAGE_BYTES_MAX])


def hear_signals() -> None:
    """As a process hears them that nobody started with others ignored."""
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _alone() -> bool:
    """Whether this process has one thread, those of libraries included."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task")) == 1
    return threading.active_count() == 1


def _spawn(birth: Birth) -> int:
    """A process that is no copy of this one. Raises OSError."""
    command = [sys.executable, "-m", "shipworthy.process.forking", birth.kind, birth.name, *map(str, birth.fds)]
    process = subprocess.Popen(command, pass_fds=birth.fds, stdin=subprocess.DEVNULL)
    process.returncode = UNASKED  # or it would ask for the status itself, and take it from us
    return process.pid


def load() -> None:
    """What a worker needs. What only the control plane needs it loads by itself, while workers start."""
    import shipworthy.adapters.telemetry.tallies
    import shipworthy.process.worker  # noqa: F401

    gc.collect()
    gc.freeze()  # no look for garbage writes on pages that are shared


def main(fd: int) -> None:
    asked = socket.socket(fileno=fd)
    load()
    born = Forking(asked).wait()
    if born is not None:
        born.live()


if __name__ == "__main__":
    if sys.argv[1] in (WORKER, CONTROL):
        hear_signals()
        Birth(sys.argv[1], sys.argv[2], tuple(map(int, sys.argv[3:]))).live()
    else:
        main(int(sys.argv[1]))
