"""What the kernel knows of a socket right now, asked without letting go of the interpreter.

Python's own ``poll`` lets other threads run while it asks, and then waits its turn: with a busy thread beside the loop that
takes milliseconds, for a question that is answered in less than one of their thousandths.
"""

from __future__ import annotations

import ctypes
import select

OVER = getattr(select, "POLLRDHUP", select.POLLHUP) | select.POLLHUP | select.POLLERR
"""The other side closed it, or it broke."""
READABLE = select.POLLIN

_poll = ctypes.PyDLL(None).poll


class _Asked(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class Glance:
    """One socket; calling it returns what of OVER and READABLE is true at this moment."""

    __slots__ = ("_asked", "_pointer")

    def __init__(self, fd: int) -> None:
        self._asked = _Asked(fd, OVER | READABLE, 0)
        self._pointer = ctypes.byref(self._asked)

    def __call__(self) -> int:
        return self._asked.revents if _poll(self._pointer, 1, 0) > 0 else 0
