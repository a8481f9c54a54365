"""Shipworthy's whole governed path under load: requests/s, CPU per request, added p50. See README.md beside this file."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent))

import load

from shipworthy.bootstrap import development_issuer, read_manifest
from shipworthy.model.op import uuid7
from shipworthy.ports import TokenWish

TICKS = os.sysconf("SC_CLK_TCK")
MANIFEST = """\
shipworthy: 1
name: bench
environment: benchmark
requirements: {{audit: {{durability: {durability}, retention_days: 1, bodies: {{retention_days: 1, bytes_max: 65536}}}}}}
server: {{port: 0}}
admin: {{port: 0}}
store: {{path: store}}
keys: {{file: keys.json}}
identity: {{development_issuer: true}}
tenants:
  acme:
    budget: {{usd: 1000000, per: month}}
    limits: {{requests_per_min: 10000000, tokens_per_min: 1000000000, concurrent: 10000}}
    teams: {{bench: {{budget: {{usd: 1000000, per: month}}}}}}
    roles: {{agent: {{groups: [bench], team: bench, use_cases: ["*"], clearance: internal}}}}
providers:
  mock: {{kind: openai-compatible, base_url: "http://127.0.0.1:{port}/v1", concurrent_max: 10000}}
models:
  small:
    provider: mock
    upstream: mock
    context_tokens_max: 100000
    output_tokens_max: 1000
    price: {{input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}}
use_cases:
  bench:
    job: Answer.
    done: {{right: a, wrong: b, refuse: c}}
    owner: bench
    risk: minimal
    data_class: internal
    mode: enforce
    tokens: {{input_max: 90000, output_max: 1000}}
    budget: {{usd: 1000000, per: month}}
    route:
      strategy: first
      models: [small]
      rules: [{{id: high, when: "request.data_class > class.internal", models: [small]}}]
"""


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes, so far."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def descendants(pid: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found[int(entry.name)] = f"{parent} {command}"
    family, grown = {pid}, True
    while grown:
        more = {child for child, said in found.items() if int(said.split()[0]) in family} - family
        grown = bool(more)
        family |= more
    return {child: found[child].partition(" ")[2] for child in family if child in found}


def with_children(pids: list[int]) -> list[int]:
    """``pids`` and what descends from them now: PostgreSQL's backends come and go."""
    return [child for pid in pids for child in descendants(pid)]


@contextmanager
def upstream() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "upstream.py")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def shipworthy(port: int, durability: str, cores: tuple[int, int]) -> Iterator[tuple[str, str, list[int], list[int]]]:
    """A server: its URL, a token, the worker's pid, PostgreSQL's."""
    with tempfile.TemporaryDirectory(prefix="shipworthy-bench-") as name:
        folder = Path(name)
        config = folder / "shipworthy.yaml"
        config.write_text(MANIFEST.format(port=port, durability=durability))
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "shipworthy", "serve", "-c", str(config)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if not said.startswith("serving at "):
                raise SystemExit(f"the server did not start:\n{(folder / 'log').read_text()}")
            base = said.split()[2]
            issuer = development_issuer(read_manifest(config))
            assert issuer is not None
            wish = TokenWish(tenant="acme", subject="bench", groups=("bench",), ttl_s=86_400)
            family = descendants(process.pid)
            workers = [pid for pid, command in family.items() if "shipworthy.process.worker" in command]
            for pid in family:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(task.name), {cores[0] if pid in workers else cores[1]})
            postmaster = [pid for pid, command in family.items() if "/bin/postgres " in command]
            yield f"{base}/chat/completions", issuer.mint(wish, uuid7(time.time_ns()), time.time_ns()), workers, postmaster
        finally:
            process.terminate()
            process.wait(60)
            log.close()


def measure(url: str, token: str, model: str, pids: list[list[int]], **load_of: object) -> dict[str, float]:
    before = [cpu_s(with_children(group)) for group in pids]
    seen = uvloop.run(load.run(url, token, model, **load_of))  # type: ignore[arg-type]
    if seen.failures:
        raise SystemExit(f"{seen.failures} requests failed at {url}")
    after = [cpu_s(with_children(group)) for group in pids]
    spent = [(now - was) / len(seen.latencies) * 1e6 for now, was in zip(after, before, strict=True)]
    figures = {"per_second": seen.per_second, "p50_us": seen.percentile_us(0.5), "p99_us": seen.percentile_us(0.99)}
    return figures | {f"cpu{place}_us": figure for place, figure in enumerate(spent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    cores = tuple(sorted(os.sched_getaffinity(0)))
    gateway, others = cores[0], cores[-1]
    os.sched_setaffinity(0, {others})
    results: dict[str, dict[str, float]] = {}
    with upstream() as port:
        direct = f"http://127.0.0.1:{port}/v1/chat/completions"
        for durability in ("strict", "relaxed"):
            with shipworthy(port, durability, (gateway, others)) as (url, token, workers, postgres):
                asyncio.run(load.run(url, token, "bench", stream=False, concurrency=8, seconds=2))  # warm
                for stream in (False, True):
                    for concurrency in (1, 32, 64):
                        shape = {"stream": stream, "concurrency": concurrency, "seconds": asked.seconds}
                        bare, through = [], []
                        for _ in range(asked.rounds):
                            bare.append(measure(direct, token, "bench", [], **shape))
                            through.append(measure(url, token, "bench", [workers, postgres], **shape))
                        name = f"{durability} {'stream' if stream else 'whole'} c{concurrency}"
                        median = {key: statistics.median(each[key] for each in through) for key in through[0]}
                        median["added_p50_us"] = median["p50_us"] - statistics.median(each["p50_us"] for each in bare)
                        results[name] = median
                        print_line(name, median, header=len(results) == 1)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2))


def print_line(name: str, figures: dict[str, float], *, header: bool) -> None:
    if header:
        titles = ("requests/s", "added p50 µs", "p50 µs", "p99 µs", "CPU µs worker", "CPU µs PostgreSQL")
        print(f"{'':<20}" + "".join(f"{title:>18}" for title in titles))
    keys = ("per_second", "added_p50_us", "p50_us", "p99_us", "cpu0_us", "cpu1_us")
    print(f"{name:<20}" + "".join(f"{figures[key]:>18,.0f}" for key in keys), flush=True)


if __name__ == "__main__":
    main()
