"""A thousand streams at once through one pinned worker: is any of them late, or starved? See README.md beside this file."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parent))

import gateway_server
from gateway_ground import Ground, ground
from load import Requests
from open_streams import Heard, listen, steady
from processes import cpu_s, family, memory_mb

GOAL_P99_MS = 50.0


class Figures(Struct):
    """One run of all streams."""

    way: str
    events: int
    later_p50_ms: float
    later_p99_ms: float
    later_max_ms: float
    way_p50_ms: float
    way_p99_ms: float
    way_max_ms: float
    gap_max_ms: float
    starved: int
    whole: int
    wrong: dict[str, int]
    core_share: float
    cpu_us_an_event: float
    postgres_share: float
    memory_mb: float


class Meter:
    """CPU of the gateway and of PostgreSQL while all streams are open, and memory in the end of that time."""

    def __init__(self, core: Callable[[], list[int]], postgres: Callable[[], list[int]]) -> None:
        self._core, self._postgres = core, postgres
        self.core_s = self.postgres_s = self.memory_mb = 0.0

    def __call__(self, opened: bool) -> None:
        sign = -1 if opened else 1
        self.core_s += sign * cpu_s(self._core())
        self.postgres_s += sign * cpu_s(self._postgres())
        if not opened:
            self.memory_mb = memory_mb(self._core())


def ordered(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else math.nan


def figures(way: str, heard: Heard, meter: Meter) -> Figures:
    events, seconds = len(heard.way_ms), heard.seconds or math.nan
    later, ways = heard.later_ms, heard.way_ms
    return Figures(
        way=way, events=events, later_p50_ms=ordered(later, 0.5), later_p99_ms=ordered(later, 0.99),
        later_max_ms=ordered(later, 1.0), way_p50_ms=ordered(ways, 0.5), way_p99_ms=ordered(ways, 0.99),
        way_max_ms=ordered(ways, 1.0), gap_max_ms=heard.gap_ms_max, starved=heard.starved, whole=heard.whole,
        wrong=dict(heard.wrong), core_share=meter.core_s / seconds,
        cpu_us_an_event=meter.core_s / events * 1e6 if events else math.nan,
        postgres_share=meter.postgres_s / seconds, memory_mb=meter.memory_mb,
    )  # fmt: skip


def measure(base: Ground, asked: argparse.Namespace) -> list[Figures]:
    """Without a gateway first: what load and upstream are late by themselves."""
    model = steady(asked.streams, asked.rate, asked.seconds)
    load = (asked.streams, asked.rate, asked.seconds)
    direct = Meter(lambda: [base.upstream_pid], list)
    requests = Requests(f"http://127.0.0.1:{base.port}/v1/chat/completions", [{}], model, stream=True)
    found = [figures("the upstream itself", listen(requests, *load, direct), direct)]
    shape = gateway_server.Shape(asked.durability, steady=model)
    with gateway_server.serving(base.base, base.database, shape, base.port) as (server, _):
        through = Meter(server.workers, lambda: family(base.database.pid))
        requests = Requests(server.url, server.senders, gateway_server.STEADY, stream=True)
        found.append(figures(f"shipworthy {asked.durability}", listen(requests, *load, through), through))
    return found


def table(found: Sequence[Figures]) -> str:
    rows = [
        "| | events | added to a gap, p50 / p99 / max, ms | on its way, p50 / p99 / max, ms | longest gap, ms | starved"
        " | whole | core | CPU µs an event | PostgreSQL's core | memory MB |",
        "| --- |" + " ---: |" * 10,
    ]
    rows += [
        f"| {each.way} | {each.events:,} | {each.later_p50_ms:.1f} / {each.later_p99_ms:.1f} / {each.later_max_ms:.1f}"
        f" | {each.way_p50_ms:.1f} / {each.way_p99_ms:.1f} / {each.way_max_ms:.1f} | {each.gap_max_ms:.0f} | {each.starved}"
        f" | {each.whole} | {each.core_share:.0%} | {each.cpu_us_an_event:.1f} | {each.postgres_share:.0%}"
        f" | {each.memory_mb:.0f} |"
        for each in found
    ]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=20, help="events a second, of each")
    parser.add_argument("--seconds", type=float, default=20.0, help="that all are open")
    parser.add_argument("--durability", choices=("relaxed", "strict"), default="relaxed")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with ground() as base:
        found = measure(base, asked)
    print(table(found))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    through = found[-1]
    met = through.later_p99_ms < GOAL_P99_MS and not through.starved and through.whole == asked.streams
    for each in found:
        if each.wrong:
            print(f"{each.way}: {each.wrong}")
    print(f"p99 added under {GOAL_P99_MS:g} ms, none starved, all whole: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
