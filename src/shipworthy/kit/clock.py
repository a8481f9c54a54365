"""A clock that a test moves by hand: wall time may jump, monotonic time only goes on."""

from __future__ import annotations

NS_PER_S = 1_000_000_000


class HandClock:
    """A Clock that stands still until it is moved."""

    def __init__(self, unix_s: int = 1_800_000_000, monotonic_s: int = 1_000) -> None:
        self._unix_ns = unix_s * NS_PER_S
        self._monotonic_ns = monotonic_s * NS_PER_S

    def unix_ns(self) -> int:
        return self._unix_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def pass_s(self, seconds: float) -> None:
        """Time goes by, on both clocks."""
        assert seconds >= 0, "time does not run backwards; `jump_s` moves the wall clock alone"
        self._unix_ns += int(seconds * NS_PER_S)
        self._monotonic_ns += int(seconds * NS_PER_S)

    def jump_s(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time goes by."""
        self._unix_ns += int(seconds * NS_PER_S)
