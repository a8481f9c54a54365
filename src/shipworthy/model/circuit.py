"""Circuits and retry budgets: when a failing model is left alone, and how much retrying traffic may cause.

Pure state with the time handed in (monotonic nanoseconds); each worker keeps its own.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

SECOND_NS = 1_000_000_000

WINDOW_NS = 30 * SECOND_NS
WINDOW_OUTCOMES_MAX = 50
OPEN_AFTER_FAILURES = 5
OPEN_AT_RATIO = 0.5
OPEN_FIRST_NS = 5 * SECOND_NS
OPEN_LONGEST_NS = 60 * SECOND_NS
CLOSE_AFTER_PROBES = 2


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Circuit:
    """Opens when of the last outcomes (≤ 50, ≤ 30 s old) at least 5 failed and they are half or more of them.

    Open for 5 s, doubling to 60 s while probes fail, or for as long as the provider's ``retry-after`` says if that is longer
    (bounded by 60 s). Then half-open: one probe at a time; two that succeed close it.
    """

    __slots__ = ("_open_ns", "_outcomes", "_probes_won", "_probing", "_until_ns", "state")

    def __init__(self) -> None:
        self.state = State.CLOSED
        self._outcomes: deque[tuple[int, bool]] = deque(maxlen=WINDOW_OUTCOMES_MAX)
        self._open_ns = OPEN_FIRST_NS
        self._until_ns = 0
        self._probing = False
        self._probes_won = 0

    def admits(self, now_ns: int) -> bool:
        """Whether a request may be sent; looking changes nothing."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN and now_ns < self._until_ns:
            return False
        return not self._probing

    def begin(self, now_ns: int) -> bool:
        """Takes the right to send one request; False when the circuit is open or a probe is already out."""
        if not self.admits(now_ns):
            return False
        if self.state is not State.CLOSED:
            self.state = State.HALF_OPEN
            self._probing = True
        return True

    def succeeded(self, now_ns: int) -> bool:
        """One request went well; True when that closed the circuit."""
        if self.state is State.CLOSED:
            self._outcomes.append((now_ns, True))
        if self.state is not State.HALF_OPEN:
            return False  # open: it was sent before the circuit opened, so it is no probe
        self._probing = False
        self._probes_won += 1
        if self._probes_won < CLOSE_AFTER_PROBES:
            return False
        self.__init__()  # type: ignore[misc]  # a closed circuit remembers nothing
        return True

    def failed(self, now_ns: int, retry_after_s: float | None = None) -> bool:
        """One request failed; True when that opened the circuit."""
        asked_ns = min(int((retry_after_s or 0.0) * SECOND_NS), OPEN_LONGEST_NS)
        if self.state is State.OPEN:  # it was sent before the circuit opened: only what the provider asks for counts
            self._until_ns = max(self._until_ns, now_ns + asked_ns)
            return False
        if self.state is State.HALF_OPEN:
            self._open(now_ns, max(min(self._open_ns * 2, OPEN_LONGEST_NS), asked_ns))
            return True
        self._outcomes.append((now_ns, False))
        recent = [ok for at, ok in self._outcomes if now_ns - at <= WINDOW_NS]
        failures = recent.count(False)
        if asked_ns or (failures >= OPEN_AFTER_FAILURES and failures >= OPEN_AT_RATIO * len(recent)):
            self._open(now_ns, asked_ns or OPEN_FIRST_NS)
            return True
        return False

    def released(self) -> None:
        """A request ended without telling anything of the provider (the client left, we refused it)."""
        self._probing = False

    def retry_after_s(self, now_ns: int) -> float:
        return max(0.0, (self._until_ns - now_ns) / SECOND_NS) if self.state is State.OPEN else 0.0

    def _open(self, now_ns: int, for_ns: int) -> None:
        self.state = State.OPEN
        self._open_ns = max(OPEN_FIRST_NS, for_ns)
        self._until_ns = now_ns + for_ns
        self._probing = False
        self._probes_won = 0


RETRY_SHARE = 0.2
RETRY_FLOOR_PER_S = 5.0
RETRY_BALANCE_MAX = 100.0


class RetryBudget:
    """Retries as a share of traffic: each request earns 0.2 of one, five a second are always earned, 100 saved at most.

    When every provider fails, the load upstream stays below 1.2 times the traffic, where a retry count multiplies it.
    """

    __slots__ = ("_at_ns", "_balance")

    def __init__(self, now_ns: int) -> None:
        self._balance = RETRY_FLOOR_PER_S
        self._at_ns = now_ns

    def earn(self) -> None:
        """A request began."""
        self._balance = min(RETRY_BALANCE_MAX, self._balance + RETRY_SHARE)

    def spend(self, now_ns: int) -> bool:
        """Takes one retry; False when there is none to take."""
        elapsed_s = max(0, now_ns - self._at_ns) / SECOND_NS
        self._at_ns = now_ns
        self._balance = min(RETRY_BALANCE_MAX, self._balance + RETRY_FLOOR_PER_S * elapsed_s)
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
