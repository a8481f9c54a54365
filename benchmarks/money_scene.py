"""One scene from its begin to its end: servers up, load, fire, quiet, drain, books."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import uvloop
from money_books import Reckoning, read, received_without_row, reckon
from money_fire import CATCH_UP_S, Fire, Script, burn
from money_ground import Caps, Database, Ground, ground, upstream
from money_load import Demand, load
from money_watch import Looks, Watch

DRAIN_S_MAX = 120.0
SCENE_S_MAX = 500.0
DRAINED = """
select (select count(*) from hold) + (select coalesce(sum(held_nano + leased_nano + suspended_nano), 0) from counter)
       + (select coalesce(sum(in_flight), 0) from pace)
"""
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


@dataclass(frozen=True)
class Scene:
    """What is played. ``cap_usd`` is the tenant's budget; a client leaves a ``leave_share`` of its requests."""

    name: str
    mode: str
    clients: int
    cap_usd: float
    latency_s: tuple[float, float]
    quiet_s: float
    lies_percent: int = 0
    leave_share: float = 0.0
    used_min: float = 0.95  # of each cap
    lost_ms_max: float = 100.0  # relaxed: the documented 50 ms, and as much for the way to the provider
    script: Script | None = None

    def under(self, mode: str) -> Scene:
        return replace(self, mode=mode)

    def worth(self, cap_usd: float) -> Scene:
        return replace(self, cap_usd=cap_usd)


@dataclass
class Ended:
    """A scene that was played: what was found, and ``wrong``, which is empty when money was exact."""

    scene: Scene
    servers: int
    workers: int
    load_s: float
    drain_s: float  # from the last byte of the provider until nothing was seen set aside
    asked: int
    ends: Counter[str]
    looks: Looks
    fire: Fire
    deadlocks: int
    books: Reckoning
    wrong: list[str] = field(default_factory=list)

    @property
    def suspended_s(self) -> float:
        """From the last kill until nothing was seen suspended any more."""
        killed_ns = max((kill.at_ns for kill in self.fire.kills), default=self.looks.suspended_ns)
        return max(0.0, (self.looks.suspended_ns - killed_ns) / 1e9)

    def story(self) -> str:
        books = self.books
        quiet = [lost for lost in books.lost if lost.store_there_s >= CATCH_UP_S]
        lines = [
            f"== {self.scene.name}, {self.scene.mode}: {self.asked} requests in {self.load_s:.0f} s, "
            f"{self.asked / self.load_s:.0f}/s; drained in {self.drain_s:.1f} s, "
            f"suspended for {self.suspended_s:.0f} s after the last kill",
            f"   clients saw {dict(self.ends.most_common())}",
            f"   rows: admitted {books.admitted}, {dict(books.outcomes)}, refused {dict(books.refused)}",
            f"   why the store could not be asked: {dict(books.away)}",
            f"   held at least {books.held_times:.2f} times what was charged; {books.at_once} at the provider at once",
            f"   used {used(books)}; overruns {books.overruns} in {books.overrun_rows} rows",
            f"   {books.compared} rows equal the provider's log, {books.compared_nano} nano-dollars",
            f"   presumed {books.presumed} rows at {books.presumed_nano}, logged {books.presumed_logged_nano}, "
            f"{books.presumed_unsent} never sent, {books.presumed_short} lies beyond their ceiling "
            f"({books.presumed_short_nano}), {books.presumed_less} at less, their lease's others at more "
            f"({books.presumed_less_nano})",
            f"   counted instead of reported: {books.unreported} rows, {books.unreported_nano} off the log",
            f"   lost {sum(lost.count for lost in books.lost)} requests by {len(books.lost)} kills, "
            f"{sum(lost.count for lost in quiet)} by {len(quiet)} of those with the store there and caught up: "
            + ", ".join(
                f"{lost.count} (${lost.nano / 1e9:.6f}, {lost.oldest_ms:.0f} ms, there {lost.store_there_s:.0f} s)"
                for lost in books.lost
            ),
            f"   beyond a cap: {books.beyond_nano} by admissions, {self.looks.beyond_nano} in {self.looks.count} looks "
            f"({self.looks.failed} failed): {self.looks.worst}",
            f"   fire: {len(self.fire.kills)} kills, {self.fire.restarts} restarts {self.fire.said}, paused "
            f"{self.fire.paused_s:.0f} s, {self.fire.steps} steps; deadlocks {self.deadlocks}",
        ]
        return "\n".join(lines + [f"   WRONG: {said}" for said in self.wrong])


def used(books: Reckoning) -> dict[str, str]:
    return {level: f"{100 * books.charged[level] / books.caps[level]:.2f} %" for level in sorted(books.caps)}


def play(scene: Scene, base: Path, database: Database, servers: int, workers: int) -> Ended:
    """Plays ``scene`` in a folder of its own below ``base``."""
    folder = base / f"{scene.name}-{scene.mode}"
    folder.mkdir()
    log = folder / "provider.jsonl"
    logged = database.log.stat().st_size
    with (
        upstream(log, scene.latency_s, scene.lies_percent) as port,
        ground(
            folder, database, servers=servers, workers=workers, mode=scene.mode, caps=Caps.of(scene.cap_usd),
            port=port, log=log,
        ) as on,
        Watch(database.superuser(on.store), folder / "looks.jsonl") as watch,
    ):  # fmt: skip
        return _play(scene, on, watch, logged)


def _play(scene: Scene, on: Ground, watch: Watch, logged: int) -> Ended:
    url = on.database.superuser(on.store)
    fire, began = Fire(), time.monotonic()
    demand = Demand(
        ports=[server.port for server in on.servers],
        tokens=on.tokens,
        leave_share=scene.leave_share,
        leave_s_max=scene.latency_s[1] * 1.5,
        quiet_s=scene.quiet_s,
        ends_at=began + (scene.script.seconds if scene.script else 0.0),
        stop_at=began + SCENE_S_MAX,
    )
    uvloop.run(_burning(scene, on, demand, fire))
    load_s = time.monotonic() - began
    drained = _drain(url)
    books = read(url, on.upstream_log)
    last_ns = max((line.ended_ns for line in books.log.values()), default=0)
    drain_s = max(0.0, (watch.looks.busy_ns - last_ns) / 1e9) if drained else DRAIN_S_MAX
    found = reckon(books, fire, strict=scene.mode == "strict")
    ended = Ended(
        scene, len(on.servers), len(on.workers()) // len(on.servers), load_s, drain_s, len(demand.asked), demand.ends,
        watch.looks, fire, _deadlocks(url, on.database.log, logged), found, found.wrong,
    )  # fmt: skip
    _judge(ended, received_without_row(demand.asked, books), strict=scene.mode == "strict")
    return ended


def _judge(ended: Ended, unrecorded: int, *, strict: bool) -> None:
    """What the books alone do not say."""
    found, looks = ended.books, ended.looks
    found.must(not strict or not unrecorded, f"{unrecorded} answers were given whole and have no row")
    found.must(ended.deadlocks == 0, f"{ended.deadlocks} deadlocks in PostgreSQL")
    found.must(looks.beyond_nano <= 0, f"seen {looks.beyond_nano} beyond a cap: {looks.worst}")
    found.must(looks.count > 0, "nobody looked")
    found.must(ended.drain_s < DRAIN_S_MAX, f"money is still set aside {DRAIN_S_MAX:.0f} s after the last request")
    found.must(found.held_times >= 3, f"holds are only {found.held_times:.2f} times the charge")
    found.must(ended.load_s < SCENE_S_MAX, f"the caps were not spent within {SCENE_S_MAX:.0f} s")
    late_ms = max((lost.oldest_ms for lost in found.lost if lost.store_there_s >= CATCH_UP_S), default=0.0)
    found.must(late_ms <= ended.scene.lost_ms_max, f"what was asked {late_ms:.0f} ms before a kill was lost")
    for level, cap in found.caps.items():
        found.must(
            found.charged[level] >= ended.scene.used_min * cap, f"{level}: only {found.charged[level]} of {cap} used"
        )


async def _burning(scene: Scene, on: Ground, demand: Demand, fire: Fire) -> None:
    burning = asyncio.create_task(burn(on, scene.script, fire)) if scene.script else None
    await load(demand, scene.clients)
    if burning is not None:
        await burning


def _drain(url: str) -> bool:
    """Whether there comes a moment at which nothing is set aside any more."""
    until = time.monotonic() + DRAIN_S_MAX
    while time.monotonic() < until:
        with psycopg.connect(url, autocommit=True) as conn:
            left = conn.execute(DRAINED).fetchone()
        if left is not None and left[0] == 0:
            return True
        time.sleep(0.1)
    return False


def _deadlocks(url: str, log: Path, logged: int) -> int:
    """As PostgreSQL counted them, or said: its count begins anew after a crash, and its log is cut when it is long."""
    with psycopg.connect(url, autocommit=True) as conn:
        counted = conn.execute(DEADLOCKS).fetchone()
    assert counted is not None
    with log.open("rb") as file:
        if log.stat().st_size >= logged:
            file.seek(logged)
        said = file.read().count(b"deadlock detected")
    return max(int(counted[0]), said)
