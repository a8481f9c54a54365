"""Prompts of a megabyte beside ordinary ones: what memory do they take, do others wait? See README.md beside this file."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parent))

import gateway_server
from gateway_ground import Ground, ground
from gateway_server import Server
from load import Load, Requests, Round, load, quantile_us, quietly
from processes import anonymous_mb

BYTES = 1_000_000
LOOK_S = 0.02
LAG = "shipworthy_loop_lag_seconds_bucket"


class Figures(Struct):
    """Ordinary requests alone, and beside large ones."""

    alone_us: tuple[float, float, float]
    """p50, p99 and p99.9."""
    beside_us: tuple[float, float, float]
    per_second: float
    large: int
    large_per_second: float
    large_p50_ms: float
    idle_mb: float
    most_mb: float
    stall_p999_s: float
    """The upper bound of the bucket of the product's own histogram."""
    errors: dict[str, int]


@contextmanager
def most_memory(server: Server) -> Iterator[list[float]]:
    """The worker's anonymous memory, looked at fifty times a second."""
    seen = [anonymous_mb(server.workers())]
    workers, stopped = server.workers(), threading.Event()

    def look() -> None:
        while not stopped.wait(LOOK_S):
            seen.append(anonymous_mb(workers))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join()


def lags(server: Server) -> dict[float, float]:
    """How often the event loop was late by at most so many seconds, as /metrics tells."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as page:
        lines = [line for line in page.read().decode().splitlines() if line.startswith(LAG)]
    found: dict[float, float] = {}
    for line in lines:
        bound = float(line.partition('le="')[2].partition('"')[0])
        found[bound] = found.get(bound, 0.0) + float(line.rpartition(" ")[2])
    return found


def stall_s(before: dict[float, float], after: dict[float, float], share: float = 0.999) -> float:
    counts = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    total = counts.get(math.inf, 0.0)
    return next((bound for bound in sorted(counts) if total and counts[bound] >= share * total), math.nan)


def together(small: Requests, large: Requests, asked: argparse.Namespace) -> tuple[Round, Round]:
    async def run() -> tuple[Round, Round]:
        loads = Load(small, asked.small, asked.seconds), Load(large, asked.large, asked.seconds)
        seen, big = await asyncio.gather(*(load.run() for load in loads))
        return seen, big

    return quietly(lambda: uvloop.run(run()))


def quantiles(seen: Round) -> tuple[float, float, float]:
    p50, p99, p999 = (quantile_us(seen.latencies, share) for share in (0.5, 0.99, 0.999))
    return p50, p99, p999


def measure(base: Ground, asked: argparse.Namespace) -> Figures:
    shape = gateway_server.Shape(asked.durability)
    with gateway_server.serving(base.base, base.database, shape, base.port) as (server, _):
        small = Requests(server.url, server.senders, "whole", stream=False)
        large = Requests(server.url, server.senders, "whole", stream=False, body_bytes=asked.bytes)
        load(small, asked.small, 1.0)
        quiet = load(small, asked.small, asked.seconds)
        before = lags(server)
        with most_memory(server) as memory:
            seen, big = together(small, large, asked)
        time.sleep(2.0)  # the gauges are written through each second
        stall = stall_s(before, lags(server))
    return Figures(
        quantiles(quiet), quantiles(seen), seen.per_second, len(big.latencies), big.per_second,
        quantile_us(big.latencies, 0.5) / 1e3, memory[0], max(memory), stall,
        dict(quiet.errors + seen.errors + big.errors),
    )  # fmt: skip


def told(found: Figures, asked: argparse.Namespace) -> str:
    def times(values: tuple[float, float, float]) -> str:
        return " / ".join(f"{value / 1e3:.1f}" for value in values)

    more = found.most_mb - found.idle_mb
    stalls = "not told" if math.isnan(found.stall_p999_s) else f"at most {found.stall_p999_s * 1e3:g} ms"
    return "\n".join(
        (
            f"| {asked.large} prompts of {asked.bytes:,} bytes at once, beside {asked.small} of 952 | |",
            "| --- | ---: |",
            f"| ordinary requests alone, p50 / p99 / p99.9, ms | {times(found.alone_us)} |",
            f"| beside large ones, ms | {times(found.beside_us)} |",
            f"| ordinary requests/s beside large ones | {found.per_second:,.0f} |",
            f"| large requests/s; p50, ms | {found.large_per_second:,.1f}; {found.large_p50_ms:,.0f} |",
            f"| memory before, and at most, MB | {found.idle_mb:.0f}, {found.most_mb:.0f} |",
            f"| more memory for each large one in flight, in its own size | {more * 1e6 / asked.large / asked.bytes:.1f} |",
            f"| the loop's stalls, p99.9, by the product's own monitor | {stalls} |",
            f"| wrong | {found.errors or 'nothing'} |",
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=8, help="connections with ordinary requests")
    parser.add_argument("--large", type=int, default=8, help="connections with large ones")
    parser.add_argument("--bytes", type=int, default=BYTES)
    parser.add_argument("--seconds", type=float, default=25.0, help="fifty looks at the loop each")
    parser.add_argument("--durability", choices=("relaxed", "strict"), default="relaxed")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with ground() as base:
        found = measure(base, asked)
    print(told(found, asked))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 1 if found.errors else 0


if __name__ == "__main__":
    sys.exit(main())
