"""The supervisor's side of ``forking``: asks for processes, and hears when they end.

What if the forking process dies? Those that it made live on, and whoever waits for one looks for it by itself; the next
birth starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from typing import TextIO

from shipworthy.process.forking import MESSAGE_BYTES_MAX, Started, start

LOOK_S = 0.1
"""How often it is looked whether a process that nobody tells us of has ended."""
LOAD_S_MAX = 60.0
END_S_MAX = 5.0
UNTOLD = 255
"""The status of a process whose end nobody saw."""


class Process:
    """One that was born. ``returncode`` None = it lives (negative: the signal that ended it)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, status: int) -> None:
        if self.returncode is None:
            self.returncode = status
            self._ended.set()

    async def look(self) -> None:
        """Waits for its end where nobody tells of it."""
        while self.returncode is None:
            if not _lives(self.pid):
                self.end(UNTOLD)
            await asyncio.sleep(LOOK_S)


class Nursery:
    """Belongs to one loop, but for ``started``, which may be older: it loads while the supervisor does."""

    def __init__(self, log: TextIO | None = None, started: Started | None = None) -> None:
        self._log = log
        self._started = started
        self._hears = False
        self._living: dict[int, Process] = {}
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[Process] | None = None
        self._looking: set[asyncio.Task[None]] = set()

    async def birth(self, kind: str, name: str, fds: Sequence[int]) -> Process:
        """A new process that inherits ``fds`` and goes by ``name``. Raises OSError when none is to be had."""
        async with self._turn:
            started = self._open()
            self._answer = asyncio.get_running_loop().create_future()
            try:
                socket.send_fds(started.ours, [f"{kind} {name}".encode()], fds)
                async with asyncio.timeout(LOAD_S_MAX):
                    return await self._answer
            except (TimeoutError, asyncio.CancelledError) as unanswered:
                self._lose()  # or its late answer would be taken for the next one's
                if isinstance(unanswered, TimeoutError):
                    raise OSError(f"nothing was forked within {LOAD_S_MAX:.0f} s") from unanswered
                raise
            finally:
                self._answer = None

    def close(self) -> None:
        """Once all that were born have ended."""
        self._lose()
        for task in self._looking:
            task.cancel()

    def _open(self) -> Started:
        if self._started is None:
            self._started = start(self._log)
        if not self._hears:
            self._started.ours.setblocking(False)
            asyncio.get_running_loop().add_reader(self._started.ours, self._hear)
            self._hears = True
        return self._started

    def _hear(self) -> None:
        assert self._started is not None
        try:
            said = self._started.ours.recv(MESSAGE_BYTES_MAX).decode()
        except BlockingIOError:
            return
        except OSError:
            said = ""
        word, _, rest = said.partition(" ")
        match word:
            case "born":
                process = self._living[int(rest)] = Process(int(rest))
                if self._answer is not None:
                    self._answer.set_result(process)
            case "refused" if self._answer is not None:
                self._answer.set_exception(OSError(rest))
            case "ended":
                pid, _, status = rest.partition(" ")
                self._living.pop(int(pid)).end(int(status))
            case _:
                self._lose()

    def _lose(self) -> None:
        """It is gone, or has to go. Its children are looked after from here."""
        if self._started is None:
            return
        if self._hears:
            asyncio.get_running_loop().remove_reader(self._started.ours)
        self._started.end()
        self._started, self._hears = None, False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(OSError("what processes are forked from has ended; its log says why"))
        for process in self._living.values():
            self._looking.add(asyncio.create_task(process.look()))
        self._living.clear()


def _lives(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # it may be ours by now: whoever lost a parent is the first process's
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
