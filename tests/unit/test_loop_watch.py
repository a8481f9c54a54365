"""The loop's lateness, as time sees it."""

from __future__ import annotations

import pytest

from shipworthy.adapters.telemetry.families import LOOP_LAG_S
from shipworthy.adapters.telemetry.loop_watch import LOOK_S, SWALLOWED_MAX, LoopWatch


class Kept:
    """A histogram that keeps what it is given."""

    counts: list[int]
    total = 0.0

    def add(self, counts: list[int], total: float) -> None:
        self.counts, self.total = counts, total


def watch() -> tuple[Kept, LoopWatch]:
    kept = Kept()
    return kept, LoopWatch(kept)  # type: ignore[arg-type]


def test_a_look_in_time_is_one_look() -> None:
    kept, watched = watch()
    assert watched.looked(10.0, 10.0004) == 10.0 + LOOK_S
    watched.write()
    assert (kept.counts[0], sum(kept.counts)) == (1, 1)


def test_a_look_too_early_is_none() -> None:
    kept, watched = watch()
    assert watched.looked(10.0, 9.9996) == 10.0
    watched.write()
    assert sum(kept.counts) == 0


def test_a_stall_counts_for_each_moment_that_it_swallowed() -> None:
    """0.1 s: who came at its beginning waited that long, who came 20 ms later waited 80 ms, and so on."""
    kept, watched = watch()
    due_s = watched.looked(10.0, 10.1005)
    assert due_s == pytest.approx(10.12)
    watched.write()
    bounds = [bound for bound, count in zip((*LOOP_LAG_S, None), kept.counts, strict=True) for _ in range(count)]
    assert bounds == [0.001, 0.03, 0.05, 0.1, 0.1, 0.25]
    assert kept.total == pytest.approx(0.1005 + 0.0805 + 0.0605 + 0.0405 + 0.0205 + 0.0005)


def test_a_machine_that_slept_costs_no_endless_loop() -> None:
    kept, watched = watch()
    assert watched.looked(10.0, 86_410.0) == 86_410.0 + LOOK_S
    watched.write()
    assert sum(kept.counts) == kept.counts[-1] == SWALLOWED_MAX


def test_what_was_written_is_not_written_again() -> None:
    kept, watched = watch()
    watched.looked(10.0, 10.0)
    watched.write()
    watched.write()
    assert sum(kept.counts) == 0
