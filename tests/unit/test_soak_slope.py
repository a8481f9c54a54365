"""What benchmarks/soak.py concludes: a slope is found with an interval that holds it, and noise is not taken for growth."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def room() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import soak_slope
    finally:
        sys.path.remove(str(BENCHMARKS))
    return soak_slope


def samples(per_hour: float, noise: float, seed: int) -> tuple[list[float], list[float]]:
    """Half an hour, one each five seconds; what is random goes on for a while, as garbage does."""
    chance, at_s, values, drift = random.Random(seed), [], [], 0.0
    for n in range(360):
        drift = 0.9 * drift + chance.gauss(0, noise)
        at_s.append(5.0 * n)
        values.append(100 + per_hour * 5.0 * n / 3_600 + drift)
    return at_s, values


@pytest.mark.parametrize("per_hour", [0.0, 3.0, -2.0, 40.0])
def test_the_interval_holds_the_slope(room: Any, per_hour: float) -> None:
    """In nearly all of a hundred soaks, whose noise is alike from one sample to the next."""
    found = [room.slope(*samples(per_hour, 0.05, seed)) for seed in range(100)]
    assert sum(line.low <= per_hour <= line.high for line in found) >= 85
    assert all(line.low < line.per_hour < line.high for line in found)


def test_growth_is_found_and_noise_is_none(room: Any) -> None:
    """A leak of 20 MB an hour is; a flat line that trembles is not."""
    assert all(room.slope(*samples(20.0, 0.05, seed)).grows for seed in range(20))
    assert not any(room.slope(*samples(0.0, 0.05, seed)).grows for seed in range(20))


def test_too_few_samples_say_nothing(room: Any) -> None:
    """No slope is made up."""
    with pytest.raises(ValueError, match="too few"):
        room.slope([0.0, 1.0], [1.0, 1.0])


@pytest.mark.parametrize(("freedom", "quantile"), [(5, 2.571), (8, 2.306), (18, 2.101), (60, 2.000)])
def test_quantiles_are_those_of_the_tables(room: Any, freedom: int, quantile: float) -> None:
    """Student's t at 97.5 %."""
    assert room.student(freedom) == pytest.approx(quantile, abs=0.002)
