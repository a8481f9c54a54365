"""Lines to a stream, written by a thread of their own: whoever says something never waits for who reads it.

Why not write at once? A reader that stalls (a full pipe, a paused terminal, a slow disk) would stop the event loop, and with
it every request. Here it costs lines: the queue is bounded in bytes, what doesn't fit is dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

QUEUE_BYTES_MAX = 4 << 20
BATCH_BYTES_MAX = 4_096
"""PIPE_BUF: writes up to it are atomic on a pipe, so lines of several processes don't mix. Longer lines go alone."""
UNMADE_BYTES = 512
"""What a line that is not made yet takes, about."""
LINGER_S = 0.02
"""Lines that come within it leave together: a busy loop is woken up for its log 50 times a second, not once a line."""
TICK_S = 1.0
WRITABLE_S_MAX = 5.0
FLUSH_S_MAX = 1.0


Line = bytes | Callable[[], bytes]


class Stream(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def fileno(self) -> int: ...


class LineWriter:
    """Takes whole lines. ``notices`` is asked once a second for lines about what could not be said."""

    def __init__(self, stream: Stream | None, notices: Callable[[], bytes] = bytes) -> None:
        self.dropped = 0
        self._stream = stream
        self._notices = notices
        self._lock = threading.RLock()  # re-entrant: a finalizer may log while its thread is in here
        self._lines: deque[Line] = deque()
        self._waiting_bytes = 0
        self._torn = False
        self._owed = b""
        self._notice_s = 0.0
        self._closing = False
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, line: Line, *, urgent: bool = False) -> None:
        """Queues one line, which ends in a newline, or what makes it: many are made at once, in the writer's thread, when
        they are about to leave. Never waits, never raises."""
        size = len(line) if isinstance(line, bytes) else UNMADE_BYTES
        with self._lock:
            if self._closing or self._waiting_bytes + size > QUEUE_BYTES_MAX:
                self.dropped += 1
                return
            self._lines.append(line)
            self._waiting_bytes += size
            if self._thread is None:
                self._begin()
        if not self._wake.is_set():  # set, the writer has yet to look at the lines, and will find this one
            self._wake.set()
        if urgent:
            self._hurry.set()

    def close(self, within_s: float = FLUSH_S_MAX) -> None:
        """Writes what waits, for at most ``within_s``; later lines are dropped."""
        with self._lock:
            self._closing = True
        self._hurry.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(within_s)
        atexit.unregister(self.close)

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        while not self._closing:
            if self._wake.wait(TICK_S):
                self._hurry.wait(LINGER_S)
            self._wake.clear()
            self._hurry.clear()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        with self._lock:
            waiting, self._waiting_bytes = tuple(self._lines), 0
            self._lines.clear()
        lines = [line for each in waiting if (line := self._made(each))]
        batch: list[bytes] = []
        size = 0
        for line in lines:
            if size + len(line) > BATCH_BYTES_MAX and batch:
                self._send(batch)
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            self._send(batch)
        self._notice()

    def _made(self, line: Line) -> bytes:
        if isinstance(line, bytes):
            return line
        try:
            return line()
        except Exception:  # noqa: BLE001 - what cannot be said is lost, as what does not fit; the others are written
            with self._lock:
                self.dropped += 1
            return b""

    def _notice(self) -> None:
        """Says what could not be said, at most once a second; keeps it for later while the stream takes nothing."""
        now_s = time.monotonic()
        if now_s < self._notice_s and not self._closing:
            return
        self._notice_s = now_s + TICK_S
        self._owed = self._owed or self._notices()
        if self._owed and self._write(self._owed):
            self._owed = b""

    def _send(self, batch: list[bytes]) -> None:
        if not self._write(b"".join(batch)):
            with self._lock:
                self.dropped += len(batch)

    def _write(self, text: bytes) -> bool:
        """Whether the stream took it all. A line that it took half of is ended before the next one."""
        if self._stream is None:
            return False
        if self._torn:
            text = b"\n" + text
        try:
            fd = self._stream.fileno()
        except (OSError, ValueError):  # not a file, or closed
            return self._write_text(self._stream, text)
        done = 0
        try:
            while done < len(text):
                done += _write_some(fd, text[done:])
        except (OSError, ValueError):
            self._torn |= done > 0
            return False
        self._torn = False
        return True

    def _write_text(self, stream: Stream, text: bytes) -> bool:
        try:
            stream.write(text.decode())
            stream.flush()
        except (OSError, ValueError):
            return False
        return True


def _write_some(fd: int, text: bytes) -> int:
    """Like ``os.write``, also where somebody made the stream non-blocking."""
    try:
        return os.write(fd, text)
    except BlockingIOError:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(WRITABLE_S_MAX * 1_000):
            raise
        return os.write(fd, text)
