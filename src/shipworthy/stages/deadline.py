"""A moment after which nobody waits any longer: one timer, however often it is waited before it."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """``with deadline:`` around an await. Raises TimeoutError there when the moment comes, and ever after.

    As ``asyncio.timeout_at``, but it can be entered again; a stream has many waits and one deadline. ``close`` ends it.
    """

    __slots__ = ("_cancelling", "_loop", "_over", "_task", "_timer")

    def __init__(self, at_s: float) -> None:
        self._over = False
        self._cancelling = 0
        self._task: asyncio.Task[object] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_at(at_s, self._come)

    def close(self) -> None:
        self._timer.cancel()

    def _come(self) -> None:
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
