"""A line through samples, and how sure its slope is."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = 10
"""Samples near each other are alike (the same garbage waits), so means of blocks are what the interval counts."""
SHARE = 0.95
TOLERATED = 1.0
"""An hour, of whatever it is: a megabyte, a task, a descriptor."""


@dataclass(frozen=True)
class Slope:
    """Per hour, with the ends of its 95 % interval."""

    per_hour: float
    low: float
    high: float

    @property
    def grows(self) -> bool:
        """The whole interval lies above what is tolerated."""
        return self.low > TOLERATED


def slope(at_s: Sequence[float], values: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """Least squares through means of blocks. ValueError when there are too few samples to say anything."""
    if len(values) < 2 * 3:
        raise ValueError(f"{len(values)} samples are too few for a slope")
    count = min(blocks, len(values) // 2)
    cuts = list(itertools.pairwise(len(values) * n // count for n in range(count + 1)))
    x = [statistics.fmean(at_s[a:b]) / 3_600 for a, b in cuts]
    y = [statistics.fmean(values[a:b]) for a, b in cuts]
    line = statistics.linear_regression(x, y)
    residue = sum((b - line.intercept - line.slope * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    error = math.sqrt(residue / (count - 2) / spread)
    reach = student(count - 2) * error
    return Slope(line.slope, line.slope - reach, line.slope + reach)


def student(freedom: int) -> float:
    """The quantile of Student's t that leaves 2.5 % on each side (Abramowitz and Stegun 26.7.5)."""
    z = statistics.NormalDist().inv_cdf((1 + SHARE) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return float(z + sum(term / freedom ** (n + 1) for n, term in enumerate(terms)))
