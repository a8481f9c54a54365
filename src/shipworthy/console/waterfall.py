"""One exchange as a waterfall: where each step and each attempt stands on one scale of time."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from shipworthy.control.wording import counted, lasting, usd
from shipworthy.model.exchange import Row
from shipworthy.model.op import Step
from shipworthy.model.route import Attempt

TICKS_WANTED = 5
BAR_PERCENT_MIN = 0.25


class Bar(Struct, frozen=True):
    """One line. ``left`` and ``width`` are percent of the whole scale."""

    label: str
    kind: str  # step | attempt
    state: str  # ok | refused | failed
    left: float
    width: float
    took: str
    note: str


class Tick(Struct, frozen=True):
    at: float
    label: str


class Waterfall(Struct, frozen=True):
    """``first_token`` is where the first token came, in percent; None when none did."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    first_token: float | None


def waterfall(row: Row) -> Waterfall:
    """Steps in the order of their begin; the attempts stand below the step in which they began."""
    ends = [step.start_ns + step.duration_ns for step in row.steps]
    ends += [attempt.started_ns + attempt.duration_ns for attempt in row.attempts]
    whole_ns = max([row.duration_ns, *ends, 1])
    first = 100 * row.first_token_ns / whole_ns if row.first_token_ns else None
    return Waterfall(tuple(_bars(row, whole_ns)), tuple(_ticks(whole_ns)), first)


def _bars(row: Row, whole_ns: int) -> Iterator[Bar]:
    waiting = sorted(row.attempts, key=lambda attempt: attempt.started_ns)
    for step in sorted(row.steps, key=lambda step: step.start_ns):
        yield _of_step(step, whole_ns)
        while step.stage == "call" and waiting:
            yield _of_attempt(waiting.pop(0), whole_ns)
    for attempt in waiting:
        yield _of_attempt(attempt, whole_ns)


def _of_step(step: Step, whole_ns: int) -> Bar:
    notes = [step.refused] if step.refused else []
    notes += [counted(step.tokens, "token")] if step.tokens else []
    notes += [f"${usd(step.cost_nano)}"] if step.cost_nano else []
    left, width = _placed(step.start_ns, step.duration_ns, whole_ns)
    state = "refused" if step.refused else "ok"
    return Bar(step.stage, "step", state, left, width, lasting(step.duration_ns), " · ".join(notes))


def _of_attempt(attempt: Attempt, whole_ns: int) -> Bar:
    notes = [f"at {attempt.provider}", attempt.failure] if attempt.failure else [f"at {attempt.provider}"]
    notes += [str(attempt.status)] if attempt.status else []
    left, width = _placed(attempt.started_ns, attempt.duration_ns, whole_ns)
    state = "failed" if attempt.failure else "ok"
    return Bar(attempt.model, "attempt", state, left, width, lasting(attempt.duration_ns), " · ".join(notes))


def _placed(start_ns: int, duration_ns: int, whole_ns: int) -> tuple[float, float]:
    """Never narrower than can be seen, never beyond the end."""
    width = max(100 * duration_ns / whole_ns, BAR_PERCENT_MIN)
    left = min(100 * max(start_ns, 0) / whole_ns, 100 - BAR_PERCENT_MIN)
    return round(left, 3), round(min(width, 100 - left), 3)


def _ticks(whole_ns: int) -> Iterator[Tick]:
    """Round times: 1, 2 or 5 times a power of ten apart."""
    apart_ns = 1
    while whole_ns / apart_ns > TICKS_WANTED:
        digits = apart_ns // 10 ** (len(str(apart_ns)) - 1)
        apart_ns = apart_ns * 5 // 2 if digits == 2 else apart_ns * 2
    for number in range(whole_ns // apart_ns + 1):
        at_ns = number * apart_ns
        yield Tick(round(100 * at_ns / whole_ns, 3), _tick_label(at_ns))


def _tick_label(at_ns: int) -> str:
    for unit_ns, unit in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")):
        if at_ns >= unit_ns:
            return f"{at_ns / unit_ns:g} {unit}"
    return "0"
