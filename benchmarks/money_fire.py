"""The fire: workers are killed, PostgreSQL is restarted and paused, clocks are stepped, while money moves."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from money_ground import Ground, port_owners, tell

CATCH_UP_S = 5.0
"""After an outage a worker's recorder writes what has gathered: a kill within it is told apart."""


@dataclass
class Kill:
    """One kill -9 of a worker, and for how long the store had been there (0 = it is away)."""

    at_ns: int
    pid: int
    store_there_s: float


@dataclass(frozen=True)
class Sighting:
    """Whose connections were whose at a moment: the process of each local port."""

    at_ns: int
    owners: Mapping[int, int]


@dataclass
class Fire:
    """What was done to the servers."""

    kills: list[Kill] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    restarts: int = 0
    paused_s: float = 0.0
    steps: int = 0
    _away: int = 0
    _back_at: float = -math.inf

    def store_there_s(self) -> float:
        """For how long the store has been there; 0 = it is away."""
        return 0.0 if self._away else time.monotonic() - self._back_at

    async def during(self, trouble: Awaitable[None]) -> None:
        self._away += 1
        try:
            await trouble
        finally:
            self._away -= 1
            self._back_at = time.monotonic()


@dataclass(frozen=True)
class Script:
    """When what happens, in seconds from the fire's begin; every ``kill_s`` a worker dies. None = never."""

    seconds: float
    kill_s: float
    immediate_at: float | None = None
    pause_at: float | None = None
    pause_s: float = 0.0
    fast_at: float | None = None
    steps: tuple[tuple[float, float], ...] = ()  # when, and what the clock is off from then on


FULL = Script(
    seconds=75.0, kill_s=1.0, immediate_at=8.0, pause_at=20.0, pause_s=30.0, fast_at=60.0,
    steps=((4.0, 90.0), (12.0, -3_600.0), (16.0, 3_600.0), (54.0, -1.0), (66.0, 0.0)),
)  # fmt: skip
SHORT = Script(
    seconds=15.0, kill_s=1.0, immediate_at=3.0, pause_at=6.0, pause_s=3.0, fast_at=11.0,
    steps=((2.0, 90.0), (5.0, -1_800.0), (10.0, 1_800.0), (13.0, 0.0)),
)  # fmt: skip


async def burn(ground: Ground, script: Script, fire: Fire) -> None:
    """Plays ``script`` to its end; every clock is right again afterwards."""
    plays: list[Awaitable[None]] = [
        _kill(ground, script, fire),
        _after(script.immediate_at, lambda: _restart(ground, fire, signal.SIGQUIT)),
        _after(script.fast_at, lambda: _restart(ground, fire, signal.SIGINT)),
        _after(script.pause_at, lambda: _pause(ground, fire, script.pause_s)),
    ]
    plays += [_after(at, partial(_step, ground, fire, seconds)) for at, seconds in script.steps]
    try:
        await asyncio.gather(*plays)
    finally:
        ground.clock.step(0)


async def _after(seconds: float | None, play: Callable[[], Awaitable[None]]) -> None:
    if seconds is not None:
        await asyncio.sleep(seconds)
        await play()


async def _kill(ground: Ground, script: Script, fire: Fire) -> None:
    end = time.monotonic() + script.seconds
    at = time.monotonic()
    while (at := at + script.kill_s) < end:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        workers = ground.workers()
        if workers:
            victim = random.choice(workers)
            tell(victim, signal.SIGSTOP)  # its last moment: while it is dying it opens no further connection
            kill = Kill(time.monotonic_ns(), victim, fire.store_there_s())
            owners = await asyncio.to_thread(port_owners, workers)
            tell(victim, signal.SIGKILL)
            fire.kills.append(kill)
            fire.sightings.append(Sighting(kill.at_ns, owners))


async def _restart(ground: Ground, fire: Fire, how: signal.Signals) -> None:
    async def restart() -> None:
        fire.said.append(f"{how.name}: away {await asyncio.to_thread(ground.database.restart, how):.1f} s")

    fire.restarts += 1
    await fire.during(restart())


async def _pause(ground: Ground, fire: Fire, seconds: float) -> None:
    async def pause() -> None:
        with ground.database.paused():
            await asyncio.sleep(seconds)

    fire.paused_s += seconds
    await fire.during(pause())


async def _step(ground: Ground, fire: Fire, seconds: float) -> None:
    """A step that would leave the month would begin another budget: it goes the other way."""
    now = datetime.now(UTC)
    if (now + timedelta(seconds=seconds)).month != now.month:
        seconds = -seconds
    ground.clock.step(seconds)
    fire.steps += 1
