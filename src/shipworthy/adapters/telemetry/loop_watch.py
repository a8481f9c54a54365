"""How late the event loop is: what somebody who comes at any moment has to wait until it is his turn.

Moments are ``LOOK_S`` apart. A stall that swallows several of them counts for each, with what was left of it then: else one
of a second would weigh as little as one of a millisecond, and a quantile would say nothing about time.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable

from shipworthy.adapters.telemetry.families import LOOP_LAG_S, SpreadHistogram

LOOK_S = 0.02
SWALLOWED_MAX = 500
"""Moments of one stall that are counted; the machine may have slept for a day."""


class LoopWatch:
    """Counts in memory; ``write`` puts it into the histogram."""

    def __init__(self, histogram: SpreadHistogram) -> None:
        self._histogram = histogram
        self._counts = [0] * (len(LOOP_LAG_S) + 1)
        self._sum_s = 0.0

    async def run(self, every_s: float, then: Callable[[], None]) -> None:
        """Until cancelled. Does ``then`` and writes, every ``every_s`` or so."""
        due_s = time.monotonic() + LOOK_S
        write_s = due_s + every_s
        while True:
            await asyncio.sleep(max(0.001, due_s - time.monotonic()))
            now_s = time.monotonic()
            due_s = self.looked(due_s, now_s)
            if now_s >= write_s:
                write_s = now_s + every_s
                then()
                self.write()

    def looked(self, due_s: float, now_s: float) -> float:
        """The loop was to look at ``due_s`` and did ``now_s``; when it is to look again."""
        for _ in range(SWALLOWED_MAX):
            if due_s > now_s:
                return due_s
            self._counts[bisect_left(LOOP_LAG_S, now_s - due_s)] += 1
            self._sum_s += now_s - due_s
            due_s += LOOK_S
        return now_s + LOOK_S

    def write(self) -> None:
        self._histogram.add(self._counts, self._sum_s)
        self._counts = [0] * len(self._counts)
        self._sum_s = 0.0
