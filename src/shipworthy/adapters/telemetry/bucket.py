"""A token bucket: so many at once, so many a second from then on."""

from __future__ import annotations

from shipworthy.model.op import Clock


class Bucket:
    """Not locked: whoever shares one holds a lock."""

    def __init__(self, per_s: float, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._clock = clock
        self._left = float(burst)
        self._at_ns = clock.monotonic_ns()

    def take(self) -> bool:
        """Whether one more may pass now."""
        now_ns = self._clock.monotonic_ns()
        self._left = min(self._burst, self._left + (now_ns - self._at_ns) * self._per_s / 1e9)
        self._at_ns = now_ns
        if self._left < 1:
            return False
        self._left -= 1
        return True
