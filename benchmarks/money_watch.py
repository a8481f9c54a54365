"""Looks at the counters from outside, five times a second, while money moves: is a level ever beyond its cap?"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

EVERY_S = 0.2
CONNECT_S = 3
LOOK = """
select c.key, c.period_start, c.cap_nano, c.charged_nano, c.held_nano, c.leased_nano, c.suspended_nano,
       (select coalesce(sum(e.overrun_nano), 0)::bigint from exchange e
        where e.overrun_nano > 0 and e.tenant = c.tenant
          and date_trunc('month', e.arrived_at at time zone 'UTC') = c.period_start at time zone 'UTC'
          and c.key in ('tenant', 'team=' || e.team, 'use_case=' || e.use_case))
from counter c where c.cap_nano > 0
"""
INDEX = (
    "create index money_overruns on exchange (tenant, team, use_case, overrun_nano, arrived_at) where overrun_nano > 0"
)


@dataclass
class Looks:
    """What was seen: ``beyond_nano`` is the most that any level was ever beyond its cap, its overruns left out."""

    count: int = 0
    failed: int = 0
    beyond_nano: int = -(10**18)
    worst: str = ""
    set_aside_nano_max: int = 0
    busy_ns: int = 0  # when anything was last seen set aside (monotonic)
    suspended_ns: int = 0  # when anything was last seen suspended


class Watch:
    """A thread with a connection of its own, which also notes all it sees; while PostgreSQL is away it sees nothing."""

    def __init__(self, url: str, notes: Path) -> None:
        self._url = url
        self._notes = notes.open("w")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.looks = Looks()
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(INDEX)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(60)
        self._notes.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_S) as conn:
                    while not self._stopped.wait(EVERY_S):
                        self._look(conn)
            except psycopg.Error:
                self.looks.failed += 1
                time.sleep(EVERY_S)

    def _look(self, conn: psycopg.Connection) -> None:
        looks = self.looks
        seen = conn.execute(LOOK).fetchall()
        now_ns = time.monotonic_ns()
        self._notes.write(json.dumps([now_ns, seen], default=str) + "\n")
        for key, start, cap, charged, held, leased, suspended, overrun in seen:
            aside = held + leased + suspended
            beyond = charged + aside - cap - overrun
            looks.set_aside_nano_max = max(looks.set_aside_nano_max, aside)
            if aside:
                looks.busy_ns = now_ns
            if suspended:
                looks.suspended_ns = now_ns
            if beyond > looks.beyond_nano:
                looks.beyond_nano = beyond
                looks.worst = (
                    f"{key} of {start:%Y-%m}: charged {charged} + set aside {aside}, cap {cap}, overruns {overrun}"
                )
        looks.count += 1
