"""Two workers against one, each with the same share of a core of its own. README.md beside this file says how."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parent))

import gateway_server
from gateway_ground import Ground, ground
from gateway_rounds import Seen, Shape, played, warmed
from gateway_target import Target
from processes import ALLOWED, cpu_s, family, pin
from rations import NoRations, rationed

GOAL = 1.7
WORKERS = (1, 2)


class Scaling(Struct):
    """What two workers did, of what one did."""

    share: float
    """Of a core, each worker's; 1 where the kernel would not ration it."""
    why_not: str
    seen: list[Seen]
    workers_cpu_s: list[float]
    """Of the two workers, over all rounds: how evenly connections fell to them."""

    @property
    def ratio(self) -> float:
        one, two = (seen.median("per_second") for seen in self.seen)
        return two / one

    @property
    def cpu_ratio(self) -> float:
        """What two would reach on cores of their own: a request's CPU with one worker, of that with two, twice."""
        one, two = (seen.median("cpu_us") for seen in self.seen)
        return 2 * one / two


@contextmanager
def raised(base: Ground, workers: int) -> Iterator[Target]:
    shape = gateway_server.Shape(workers=workers)
    with gateway_server.serving(base.base, base.database, shape, base.port, worker_cores=ALLOWED) as (server, _):
        pin(server.around(), *ALLOWED)
        beside = {"PostgreSQL": lambda: family(base.database.pid), "supervisor, control": server.around}
        models = {upstream: name for name, upstream in gateway_server.USE_CASES.items()}
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        yield Target(name, "", server.url, server.senders, server.workers, beside, models=models)


def measure(base: Ground, asked: argparse.Namespace) -> Scaling:
    os.sched_setaffinity(0, ALLOWED)
    for pid in (base.upstream_pid, *family(base.database.pid)):
        pin([pid], *ALLOWED)
    with ExitStack() as stack:
        targets = [stack.enter_context(raised(base, workers)) for workers in WORKERS]
        share, why_not = asked.share, ""
        try:
            for target in targets:
                stack.enter_context(rationed(target.core(), asked.share))
        except NoRations as why:
            share, why_not = 1.0, str(why)
        warmed(targets, asked.warm)
        before = [cpu_s([pid]) for pid in targets[1].core()]
        seen = played(targets, [Shape("whole", asked.concurrency)], asked.rounds, asked.seconds)
        spent = [cpu_s([pid]) - was for pid, was in zip(targets[1].core(), before, strict=True)]
    return Scaling(share, why_not, seen, spent)


def table(found: Scaling) -> str:
    lines = ["| | requests/s | CPU µs a request | PostgreSQL's | p50 / p99, ms |", "| --- |" + " ---: |" * 4]
    lines += [
        f"| {seen.target} | {seen.median('per_second'):,.0f} | {seen.median('cpu_us'):,.0f}"
        f" | {seen.median_beside('PostgreSQL'):,.0f}"
        f" | {seen.median('p50_us') / 1e3:.1f} / {seen.median('p99_us') / 1e3:.1f} |"
        for seen in found.seen
    ]
    even = " / ".join(f"{spent / (sum(found.workers_cpu_s) or 1):.0%}" for spent in found.workers_cpu_s)
    lines.append(f"\nThe two workers' shares of the work: {even}.")
    return "\n".join([*lines, *_verdict(found)])


def _verdict(found: Scaling) -> Sequence[str]:
    by_cpu = f"By CPU a request, two on cores of their own reach {found.cpu_ratio:.2f} times one."
    if found.why_not and len(ALLOWED) < 4:
        return (
            f"Workers shared the cores with their load (no rations: {found.why_not}), so {found.ratio:.2f} says nothing.",
            by_cpu,
        )
    how = f"each on {found.share:.0%} of a core" if found.share < 1 else "each on a core"
    reached = "yes" if found.ratio >= GOAL else "NO"
    return (f"Two workers, {how}: {found.ratio:.2f} times one; wanted {GOAL}: {reached}.", by_cpu)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.5, help="of a core, for each worker; the rest is the load's")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with ground() as base:
        found = measure(base, asked)
    print(table(found))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 1 if any(seen.errors for seen in found.seen) else 0


if __name__ == "__main__":
    sys.exit(main())
