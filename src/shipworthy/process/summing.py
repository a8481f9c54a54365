"""What the control plane does for cost reports: adds what was recorded to the sums that they read."""

from __future__ import annotations

import asyncio
import time

from shipworthy.bootstrap import Control
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.observation import StoreDegraded
from shipworthy.model.op import Observe

LOOK_S = 5.0
REST_TIMES = 3
"""So many times as long as a piece took the job rests: it takes a quarter of one of the store's cores at most."""


async def sum_costs_for_ever(running: Control, observe: Observe) -> None:
    """Until cancelled. While it does not run, reports read more rows and stay exact."""
    away = False
    while True:
        began, more = time.monotonic(), False
        try:
            more = await running.cost_sums.sum()
            away = False
        except StoreUnavailable as reason:
            if not away:
                observe(StoreDegraded("costs", str(reason), 0))
            away = True
        took_s = time.monotonic() - began
        await asyncio.sleep(REST_TIMES * took_s if more else max(LOOK_S, REST_TIMES * took_s))
