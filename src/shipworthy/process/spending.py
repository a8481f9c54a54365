"""What the control plane does for the runaway stop: looks every few seconds at who spends how much."""

from __future__ import annotations

import asyncio
import time

from shipworthy.bootstrap import Control
from shipworthy.control.runaway import Unstopped, look, watched
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.observation import StoreDegraded
from shipworthy.model.op import Observe, Op, SystemClock

LOOK_S = 2.0
REST_TIMES = 9
"""So many times as long as a look took the watch rests: it takes a tenth of one of the store's cores at most."""
FORGET_S = 3600.0


async def watch_spend_for_ever(running: Control, observe: Observe) -> None:
    """Until cancelled. Costs nothing where no tenant wants it."""
    away, forget_at, unstopped = False, 0.0, Unstopped()
    while True:
        began = time.monotonic()
        rules = watched(running.loaded.snapshot)
        try:
            op = Op.for_job(SystemClock(), observe)
            await look(op, running.spend, running.plane.pauses, rules, unstopped)
            if began >= forget_at:
                await running.spend.forget()
                forget_at = began + FORGET_S
            away = False
        except StoreUnavailable as reason:
            if not away:
                observe(StoreDegraded("runaway", str(reason), 0))
            away = True
        await asyncio.sleep(max(LOOK_S, REST_TIMES * (time.monotonic() - began)))
