"""Half an hour at half load, with clients that leave and providers that fail: does anything grow, or stay behind?

README.md beside this file says how.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec
import psycopg
import uvloop
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parent))

import gateway_server
from gateway_ground import Ground, ground
from gateway_rounds import Shape, measured, warmed
from gateway_server import Server
from gateway_target import Target
from load import Requests
from processes import anonymous_mb, connections, descriptors, family, threads
from soak_slope import Slope, slope
from soak_visits import MIX, Visits

TASKS = Path(__file__).parent / "soak_tasks"
WARM_SHARE, WARM_S_MAX = 0.2, 300.0
"""What is left out at the beginning: caches fill, the allocator finds its size."""
CALIBRATE_S = 3.0
QUIET_S = 10.0
REST_EVERY_S, REST_S = 30.0, 4.0
"""Every half a minute nobody comes for so long. What is there then is no request: a machine that gets slower has
more of them in hand while they come, and that is no leak."""
END_S_MAX, END_LOOK_S = 90.0, 2.0
"""How long after the last visit something may still be there: a lease that was asked for when its client left stays
suspended for a minute, because nobody knows whether the store granted it."""
STANDING = """
select (select count(*) from hold), (select count(*) from lease),
       (select coalesce(sum(held_nano), 0)::bigint from counter),
       (select coalesce(sum(suspended_nano), 0)::bigint from counter),
       (select count(*) from exchange)
"""
MINUTES_MIN = 5.0
AT_REST = ("tasks", "own_descriptors")
GROWING = ("memory_mb", *AT_REST)
TOLD = (*GROWING, "control_mb", "postgres_mb")  # the last has caches that it fills for hours


class Sample(Struct):
    """What one look saw."""

    at_s: float
    memory_mb: float
    """Anonymous pages of the worker: what it allocated."""
    control_mb: float
    postgres_mb: float
    tasks: int
    threads: int
    descriptors: int
    clients: int
    upstreams: int
    holds: int
    leases: int
    held_nano: int
    suspended_nano: int
    rows: int
    resting: bool

    @property
    def own_descriptors(self) -> int:
        """Open files that are no client's connection and none to the provider."""
        return self.descriptors - self.clients - self.upstreams


class Looker:
    """Looks at one worker, its sockets, and its store."""

    def __init__(self, base: Ground, server: Server, store: str, folder: Path) -> None:
        self._base, self._server, self._folder = base, server, folder
        [self.worker] = server.workers()
        self._conn = psycopg.connect(base.database.superuser(store), autocommit=True)
        self._port = Requests(server.url, [{}], "", stream=False).port
        self._began = time.monotonic()

    def look(self, *, resting: bool = False) -> Sample:
        holds, leases, held, suspended, rows = self._conn.execute(STANDING).fetchone() or (0,) * 5
        return Sample(
            time.monotonic() - self._began, anonymous_mb([self.worker]), anonymous_mb(self._server.around()),
            anonymous_mb(family(self._base.database.pid)), self._tasks(), threads(self.worker), descriptors(self.worker),
            connections(local=self._port), connections(remote=self._base.port),
            holds, leases, held, suspended, rows, resting,
        )  # fmt: skip

    def alive(self) -> bool:
        return self._server.workers() == [self.worker]

    def close(self) -> None:
        self._conn.close()

    def _tasks(self) -> int:
        try:
            return int((self._folder / str(self.worker)).read_text())
        except (OSError, ValueError):
            return 0


class Soaked(Struct):
    """One soak."""

    rate: float
    before: Sample
    samples: list[Sample]
    after: Sample
    seen: dict[str, int]
    wrong: dict[str, int]
    alive: bool

    def measured(self, name: str) -> list[Sample]:
        """The samples that count for ``name``."""
        warm_s = min(WARM_S_MAX, WARM_SHARE * self.samples[-1].at_s)
        return [each for each in self.samples if each.at_s >= warm_s and (each.resting or name not in AT_REST)]

    def slope(self, name: str) -> Slope:
        samples = self.measured(name)
        return slope([sample.at_s for sample in samples], [float(getattr(sample, name)) for sample in samples])


def leaked(before: Sample, after: Sample) -> list[str]:
    """What is there when all is over, and was not before."""
    left = {
        "tasks": after.tasks - before.tasks,
        "threads": after.threads - before.threads,
        "clients' connections": after.clients,
        "connections to the provider": after.upstreams - before.upstreams,
        "holds and intents": after.holds,
        "nano held": after.held_nano,
        "nano suspended": after.suspended_nano,
        "leases": after.leases - max(1, before.leases),
    }
    return [f"{count} {name}" for name, count in left.items() if count > 0]


def settled(looker: Looker, before: Sample) -> Sample:
    """The first look at which nothing is left behind; the last one, when there is always something."""
    deadline = time.monotonic() + END_S_MAX
    while True:
        time.sleep(END_LOOK_S)
        after = looker.look(resting=True)
        if not leaked(before, after) or time.monotonic() > deadline:
            return after


def half_rate(target: Target) -> float:
    """Visits a second that take half of the gateway's core, by what each kind costs it."""
    costs = {kind: measured(target, Shape(kind, 16), CALIBRATE_S).cpu_us for kind in ("whole", "burst", "paced")}
    each = sum(share * costs.get(kind, costs["whole"]) for kind, share in MIX.items()) / sum(MIX.values())
    return 0.5 * 1e6 / each


async def visited(looker: Looker, visits: Visits, asked: argparse.Namespace) -> list[Sample]:
    """Samples until the time is over."""
    samples = []
    end = time.monotonic() + asked.minutes * 60
    rest_at = time.monotonic() + REST_EVERY_S
    running = asyncio.create_task(visits.run())
    while time.monotonic() < end and looker.alive() and not running.done():
        await asyncio.sleep(asked.every)
        if time.monotonic() < rest_at:
            samples.append(await asyncio.to_thread(looker.look))
            continue
        async with visits.resting():
            await asyncio.sleep(REST_S)
            samples.append(await asyncio.to_thread(looker.look, resting=True))
        rest_at = time.monotonic() + REST_EVERY_S
        last, wrong = samples[-1], sum(visits.wrong.values())
        print(f"{last.at_s:>6.0f} s  {last.rows:>9,} rows  {last.memory_mb:6.1f} MB  {last.tasks} tasks  {wrong} wrong",
              file=sys.stderr, flush=True)  # fmt: skip
    visits.stop()
    await running
    return samples


def soak(base: Ground, asked: argparse.Namespace) -> Soaked:
    folder = base.base / "tasks"
    folder.mkdir()
    ways = os.pathsep.join(filter(None, (str(TASKS), os.environ.get("PYTHONPATH", ""))))
    os.environ |= {"SOAK_TASKS": str(folder), "PYTHONPATH": ways}
    shape = gateway_server.Shape(asked.durability)
    with gateway_server.serving(base.base, base.database, shape, base.port) as (server, store):
        models = {upstream: name for name, upstream in gateway_server.USE_CASES.items()}
        target = Target("shipworthy", "", server.url, server.senders, server.workers, models=models)
        warmed([target], 1.0)
        rate = asked.rate or half_rate(target)
        looker = Looker(base, server, store, folder)
        try:
            time.sleep(QUIET_S)
            before = looker.look(resting=True)
            requests = {
                "whole": Requests(server.url, server.senders, "whole", stream=False),
                "burst": Requests(server.url, server.senders, "whole", stream=True),
                "paced": Requests(server.url, server.senders, "paced", stream=True),
                "faulty": Requests(server.url, server.senders, "faulty", stream=False),
            }
            visits = Visits(requests, rate)
            samples = uvloop.run(visited(looker, visits, asked))
            after = settled(looker, before)
            return Soaked(rate, before, samples, after, dict(visits.seen), dict(visits.wrong), looker.alive())
        finally:
            looker.close()


def told(found: Soaked) -> str:
    last, after = found.samples[-1], found.after
    lines = [
        f"{sum(found.seen.values()):,} visits in {last.at_s / 60:.1f} min, {found.rate:,.0f} a second: {found.seen}",
        f"wrong: {found.wrong or 'nothing'}; the worker {'is the same' if found.alive else 'DIED'}",
        "",
        "| | first | last | after | an hour, 95 % interval | |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in TOLD:
        line, samples = found.slope(name), found.measured(name)
        cells = [f"{getattr(sample, name):.1f}" for sample in (samples[0], samples[-1], after)]
        said = "GROWS" if line.grows else "flat"
        lines.append(
            f"| {name} | {' | '.join(cells)} | {line.per_hour:+.2f} ({line.low:+.2f} to {line.high:+.2f}) | {said} |"
        )
    left, took_s = leaked(found.before, after), after.at_s - last.at_s
    lines.append(f"\nLeft behind {took_s:.0f} s after the last visit: {', '.join(left) if left else 'nothing'}.")
    return "\n".join(lines)


def failed(found: Soaked) -> bool:
    growing = [name for name in GROWING if found.slope(name).grows]
    return bool(found.wrong or leaked(found.before, found.after) or growing or not found.alive)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--rate", type=float, help="visits a second (half of what the core can do)")
    parser.add_argument("--durability", choices=("relaxed", "strict"), default="relaxed")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.minutes < MINUTES_MIN:
        parser.error(f"--minutes: {MINUTES_MIN:g} at least, fewer say nothing of a slope")
    with ground() as base:
        found = soak(base, asked)
    print(told(found))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 1 if failed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
