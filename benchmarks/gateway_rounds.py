"""Rounds: every target under every kind of load in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from gateway_target import Target
from load import Requests, load, quantile_us
from msgspec import Struct, field
from processes import cpu_s, memory_mb
from upstream import PACED_MODEL, WHOLE_MODEL

KINDS = {"whole": (WHOLE_MODEL, False), "burst": (WHOLE_MODEL, True), "paced": (PACED_MODEL, True)}
"""What is asked for: the upstream's model, and whether as a stream."""

WARM_CONCURRENCY = 8
SETTLE_LOOK_S = 0.2
SETTLE_S_MAX = 3.0
QUIET_SHARE = 0.1
"""Of a core: what a target may still use when its round counts as over. What it does until then is its round's work."""


class Shape(Struct, frozen=True):
    """One kind of load."""

    kind: str
    concurrency: int

    def requests(self, target: Target) -> Requests:
        model, stream = KINDS[self.kind]
        return target.requests(model, stream=stream)


class Sample(Struct):
    """One target's round."""

    per_second: float
    p50_us: float
    p99_us: float
    first_p50_us: float
    cpu_us: float
    load_cpu_us: float
    memory_mb: float
    answers: int
    beside_us: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    window_ns: tuple[int, int] = (0, 0)
    """Wall clock: which rows of the record are this round's."""


class Seen(Struct):
    """All rounds of one target and shape."""

    target: str
    shape: Shape
    samples: list[Sample]

    def median(self, figure: str) -> float:
        values: list[float] = [getattr(sample, figure) for sample in self.samples]
        return statistics.median(values)

    def median_beside(self, name: str) -> float:
        return statistics.median(sample.beside_us.get(name, 0.0) for sample in self.samples)

    @property
    def errors(self) -> Counter[str]:
        return sum((Counter(sample.errors) for sample in self.samples), Counter())


def settled(groups: Callable[[], Mapping[str, list[int]]]) -> None:
    """Returns when these processes are quiet, or have had time enough."""
    deadline = time.monotonic() + SETTLE_S_MAX
    while time.monotonic() < deadline:
        before = _used(groups())
        time.sleep(SETTLE_LOOK_S)
        if _used(groups()) - before < QUIET_SHARE * SETTLE_LOOK_S:
            return


def _used(groups: Mapping[str, list[int]]) -> float:
    return sum(map(cpu_s, groups.values()))


def groups_of(target: Target) -> dict[str, list[int]]:
    return {"": target.core()} | {name: pids() for name, pids in target.beside.items()}


def measured(target: Target, shape: Shape, seconds: float) -> Sample:
    """One round."""
    requests = shape.requests(target)
    before = {name: cpu_s(pids) for name, pids in groups_of(target).items()}
    since_ns = time.time_ns()
    seen = load(requests, shape.concurrency, seconds)
    until_ns, memory = time.time_ns(), memory_mb(target.core())
    settled(lambda: groups_of(target))
    answers = max(1, len(seen.latencies))
    spent = {name: (cpu_s(pids) - before[name]) / answers * 1e6 for name, pids in groups_of(target).items()}
    return Sample(
        per_second=seen.per_second,
        p50_us=quantile_us(seen.latencies, 0.5),
        p99_us=quantile_us(seen.latencies, 0.99),
        first_p50_us=quantile_us(seen.firsts, 0.5),
        cpu_us=spent.pop(""),
        load_cpu_us=seen.load_cpu_s / answers * 1e6,
        memory_mb=memory,
        answers=len(seen.latencies),
        beside_us=spent,
        errors=dict(seen.errors),
        window_ns=(since_ns, until_ns),
    )


def warmed(targets: Sequence[Target], seconds: float) -> None:
    """Code compiled, connections made, leases drawn, before anything counts."""
    for target in targets:
        for kind in ("whole", "burst"):
            load(Shape(kind, WARM_CONCURRENCY).requests(target), WARM_CONCURRENCY, seconds)


def played(targets: Sequence[Target], shapes: Sequence[Shape], rounds: int, seconds: float) -> list[Seen]:
    """Every shape: ``rounds`` times all targets, one after the other."""
    seen = []
    for shape in shapes:
        samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
        for _ in range(rounds):
            for target in targets:
                samples[target.name].append(measured(target, shape, seconds))
        seen += [Seen(name, shape, each) for name, each in samples.items()]
        for each in seen[-len(targets) :]:
            print(_line(each), file=sys.stderr, flush=True)
    return seen


def _line(seen: Seen) -> str:
    shape = f"{seen.shape.kind} {seen.shape.concurrency}"
    figures = f"{seen.median('per_second'):>9,.0f}/s {seen.median('cpu_us'):>9,.0f} µs CPU"
    times = f"p50 {seen.median('p50_us'):>9,.0f} p99 {seen.median('p99_us'):>9,.0f} µs"
    wrong = f"  WRONG {dict(seen.errors)}" if seen.errors else ""
    return f"{shape:<9} {seen.target:<20} {figures}  {times}{wrong}"
