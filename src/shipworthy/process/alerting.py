"""What the control plane does for budget alerts: looks each second, says what it finds, and posts what is due."""

from __future__ import annotations

import asyncio
import time

from shipworthy.bootstrap import Control
from shipworthy.control.alert_delivery import DELIVERIES_MAX, deliver
from shipworthy.control.alerts import Rounds, forget, look
from shipworthy.model.alert import Alert
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.observation import Failed, StoreDegraded
from shipworthy.model.op import Observe, Op, SystemClock
from shipworthy.ports import AlertPoster

LOOK_S = 1.0
FORGET_S = 3600.0


async def alert_for_ever(running: Control, observe: Observe) -> None:
    """Until cancelled. A receiver that hangs delays no look; a POST that is cut off is made again once its claim is over."""
    rounds, in_flight = Rounds(), set[asyncio.Task[None]]()
    away, forget_at = False, 0.0
    try:
        while True:
            op = Op.for_job(SystemClock(), observe)
            snapshot, poster = running.loaded.snapshot, running.poster
            try:
                await look(op, running.alerts, snapshot, rounds, deliver=poster is not None)
                if poster is not None and len(in_flight) < DELIVERIES_MAX:
                    for alert in await running.alerts.claim(DELIVERIES_MAX - len(in_flight)):
                        in_flight.add(task := asyncio.create_task(_deliver(op, running, poster, alert)))
                        task.add_done_callback(in_flight.discard)
                if time.monotonic() >= forget_at:
                    await forget(op, running.alerts, snapshot.retention_days)
                    forget_at = time.monotonic() + FORGET_S
                away = False
            except StoreUnavailable as reason:
                if not away:
                    observe(StoreDegraded("alerts", str(reason), len(in_flight)))
                away = True
            await asyncio.sleep(LOOK_S)
    finally:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


async def _deliver(op: Op, running: Control, poster: AlertPoster, alert: Alert) -> None:
    try:
        await deliver(op, running.alerts, poster, alert, running.loaded.snapshot)
    except Exception as unforeseen:  # noqa: BLE001 - whatever it is, it costs this try and no other
        op.observe(Failed.of("alert delivery", unforeseen))
