"""Uvicorn as our processes run it: without signal handlers of its own, for the supervisor says when to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn

CLOSE_S = 2.0
"""Beyond the flush: what uvicorn itself may take to close."""


class QuietServer(uvicorn.Server):
    """A server that leaves signals alone."""

    async def end(self, serving: asyncio.Task[None], flush_s: float) -> None:
        """Stops listening and closes what is idle; the last bytes of answers have ``flush_s`` to reach their readers."""
        self.should_exit = True
        force = asyncio.get_running_loop().call_later(flush_s, setattr, self, "force_exit", True)
        done, _ = await asyncio.wait({serving}, timeout=flush_s + CLOSE_S)
        force.cancel()
        if not done:
            serving.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
