"""A moment after which nobody waits any longer. All of a loop's share one timer: nearly every wait is over before it."""

from __future__ import annotations

import asyncio
from types import TracebackType

EARLY_S = 0.001
"""By how much a loop's timer may ring before its time: loops count in milliseconds."""
NEVER = float("inf")


class Deadlines:
    """The deadlines of one event loop."""

    __slots__ = ("_alarm", "_open", "_rings_at_s", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._open: set[Deadline] = set()
        self._rings_at_s = NEVER
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, at_s: float) -> Deadline:
        """One that comes at ``at_s`` of the loop's time, unless it is closed before."""
        deadline = Deadline(self.loop, self._open, at_s)
        self._open.add(deadline)
        if at_s < self._rings_at_s:
            self._set(at_s)
        return deadline

    def _set(self, at_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings_at_s = at_s
        self._alarm = self.loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._alarm, self._rings_at_s = None, NEVER
        late_s = self.loop.time() + EARLY_S
        for deadline in [each for each in self._open if each.at_s <= late_s]:
            deadline.come()
        if self._open:
            self._set(min(each.at_s for each in self._open))


class Deadline:
    """``with deadline:`` around an await. Raises TimeoutError there when the moment comes, and ever after.

    As ``asyncio.timeout_at``, but it can be entered again; a stream has many waits and one deadline. ``close`` ends it.
    """

    __slots__ = ("_cancelling", "_loop", "_open", "_over", "_task", "at_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, among: set[Deadline], at_s: float) -> None:
        self.at_s = at_s
        self._open = among
        self._over = False
        self._cancelling = 0
        self._task: asyncio.Task[object] | None = None
        self._loop = loop

    def put_off(self, at_s: float) -> None:
        """It comes later than was said, unless it has come."""
        self.at_s = at_s

    def close(self) -> None:
        self._open.discard(self)

    def come(self) -> None:
        self._open.discard(self)
        self._over = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> None:
        if self._over:
            raise TimeoutError
        task = self._task = asyncio.current_task(self._loop)  # finding the loop is a system call before Python 3.12
        assert task is not None
        self._cancelling = task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, reason: BaseException | None, _: TracebackType | None) -> None:
        task, self._task = self._task, None
        assert task is not None
        if self._over and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from reason
