"""All that one run of benchmarks/gateway.py found, and how that stands beside what was wanted."""

from __future__ import annotations

from collections.abc import Sequence

from gateway_rounds import Sample, Seen, Shape
from gateway_steps import StepTime
from msgspec import Struct

UPSTREAM = "the upstream itself"
RELAXED, STRICT, FERROGW, LITELLM = "shipworthy relaxed", "shipworthy strict", "ferrogw", "litellm"


class Subject(Struct):
    """A target, as a report knows it."""

    name: str
    version: str
    start_s: float
    idle_mb: float
    beside_mb: dict[str, float] = {}
    """After the last round."""


class Goal(Struct, frozen=True):
    """What the project wants of itself; ``seen`` is nan where the run did not measure it."""

    words: str
    wanted: float
    seen: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.seen >= self.wanted if self.at_least else self.seen <= self.wanted


class Report(Struct):
    """One run."""

    python: str
    cores: int
    rounds: int
    seconds: float
    private_network: bool
    others_share: float
    """Of the cores that we may use: what other work took meanwhile."""
    flush_us: float
    subjects: list[Subject]
    missing: dict[str, str]
    seen: list[Seen]
    steps: dict[str, list[StepTime]]

    def of(self, target: str, kind: str, concurrency: int) -> Seen | None:
        wanted = Shape(kind, concurrency)
        return next((seen for seen in self.seen if seen.target == target and seen.shape == wanted), None)

    def figure(self, target: str, kind: str, concurrency: int, name: str) -> float:
        seen = self.of(target, kind, concurrency)
        return seen.median(name) if seen is not None else float("nan")

    def added_us(self, target: str, kind: str, concurrency: int, name: str) -> float:
        """Beyond the upstream asked directly in the same run."""
        direct = self.figure(UPSTREAM, kind, concurrency, name)
        return self.figure(target, kind, concurrency, name) - direct

    def load_mb(self, target: str) -> float:
        return max((sample.memory_mb for sample in self._samples(target)), default=float("nan"))

    def wrong(self, target: str) -> int:
        return sum(sum(sample.errors.values()) for sample in self._samples(target))

    def _samples(self, target: str) -> list[Sample]:
        return [sample for seen in self.seen if seen.target == target for sample in seen.samples]

    def goals(self) -> Sequence[Goal]:
        def ratio(kind: str, concurrency: int, one: str, other: str, name: str = "per_second") -> float:
            return self.figure(one, kind, concurrency, name) / self.figure(other, kind, concurrency, name)

        p99_share = self.figure(RELAXED, "whole", 32, "p99_us") / self.figure(RELAXED, "whole", 32, "p50_us")
        alone = self.added_us(RELAXED, "whole", 1, "p50_us") / self.added_us(FERROGW, "whole", 1, "p50_us")
        strict = self.figure(STRICT, "whole", 64, "per_second") / self.figure(RELAXED, "whole", 64, "per_second")
        return (
            Goal("requests/s at 32, of ferrogw's", 1.5, ratio("whole", 32, RELAXED, FERROGW)),
            Goal("requests/s at 32, of litellm's", 50, ratio("whole", 32, RELAXED, LITELLM)),
            Goal("burst streams/s at 32, of ferrogw's", 1.6, ratio("burst", 32, RELAXED, FERROGW)),
            Goal("CPU a paced stream at 32, of ferrogw's", 1, ratio("paced", 32, RELAXED, FERROGW, "cpu_us"), False),
            Goal("added p50 at 1, of ferrogw's", 1, alone, False),
            Goal("p99 at 32, of its p50", 3, p99_share, False),
            Goal("strict's requests/s at 64, of relaxed's", 0.5, strict),
        )
