"""What the control plane clears away: holds of the dead, what is past its expiry, what is past its retention."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from shipworthy.adapters.telemetry.metrics import forget
from shipworthy.bootstrap import Control
from shipworthy.control.sweep import expire, sweep
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.observation import StoreDegraded
from shipworthy.model.op import Observe, Op, SystemClock

SWEEP_S = 5.0
"""How often expired holds are looked for; a dead worker's are swept at once."""
LATE_S = 30.0
"""Longer than any statement of a worker may run in the store."""
EXPIRE_S = 3600.0
"""How often retention is enforced, on rows, bodies and answers kept for repeats."""


async def sweep_for_ever(running: Control, dead: asyncio.Queue[list[str]], metrics: Path, observe: Observe) -> None:
    """Settles what dead workers held at once, and the rest on time.

    The dead are looked for a while longer: a reservation that a worker had sent may commit after its death.
    """
    gone: dict[str, float] = {}  # until when each is looked for
    expires_at = 0.0
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SWEEP_S):
                died = await dead.get()
                gone.update(dict.fromkeys(died, time.monotonic() + LATE_S))
                await asyncio.to_thread(_forget, metrics, died)
        try:
            began = time.monotonic()
            op = Op.for_job(SystemClock(), observe)
            await sweep(op, running.sweeper, sorted(gone))
            gone = {worker: until for worker, until in gone.items() if until > began}
            if time.monotonic() >= expires_at:
                await _expire(op, running)
                expires_at = time.monotonic() + EXPIRE_S
        except StoreUnavailable as away:
            observe(StoreDegraded("sweep", str(away), len(gone)))


async def _expire(op: Op, running: Control) -> None:
    kept = running.loaded.snapshot
    await expire(op, running.sweeper, kept.retention_days, kept.bodies.retention_days)
    for tenant in kept.tenants:
        await running.repeats.sweep(tenant)


def _forget(metrics: Path, process_ids: list[str]) -> None:
    """Takes the gauges of dead processes out of the metrics; their counters stay."""
    for process_id in process_ids:
        with contextlib.suppress(OSError):
            forget(metrics, process_id)
