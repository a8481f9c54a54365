"""The control plane's process: admin API and console on ``admin``, /metrics on its own bind, and the sweeper.

``python -m shipworthy.process.control CHANNEL_FD``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from shipworthy.adapters.telemetry.metrics import exposition, forget
from shipworthy.bootstrap import Control, Launch, launch_control, read_manifest
from shipworthy.console.app import make_console
from shipworthy.control.sweep import expire, sweep
from shipworthy.http.admin import make_admin
from shipworthy.http.metrics_page import metrics_app
from shipworthy.manifest.files import Texts
from shipworthy.model.errors import StartRefused, StoreUnavailable
from shipworthy.model.observation import StoreDegraded
from shipworthy.model.op import Observe, Op, SystemClock
from shipworthy.process.channel import Channel, Dead, Drain, Ready, Reload, Reloaded
from shipworthy.process.serving import QuietServer
from shipworthy.process.sockets import bind
from shipworthy.process.voice import Voice

EXPIRE_S = 3_600.0
"""How often what is past its retention is removed."""
SWEEP_S = 5.0
"""How often expired holds are looked for; a dead worker's are swept at once."""


async def control(channel_fd: int) -> None:
    """Serves until told to end, or until the supervisor is gone."""
    channel = await Channel.over(socket.socket(fileno=channel_fd))
    launch = await channel.receive()
    if not isinstance(launch, Launch):
        return
    observe = Voice(launch).observe
    async with launch_control(Path(launch.config), launch.store_url, observe, launch.texts) as running:
        deployment = running.loaded.deployment
        admin = bind(deployment.admin)
        servers = [_server(make_admin(running.plane, make_console(running.plane)), admin)]
        if deployment.telemetry.prometheus is not None:
            page = metrics_app(Path(launch.metrics_path), exposition)
            servers.append(_server(page, bind(deployment.telemetry.prometheus)))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C reaches the group; the supervisor says when
        dead: asyncio.Queue[list[str]] = asyncio.Queue()
        obey = asyncio.create_task(_obey(channel, running, launch, dead))
        loop.add_signal_handler(signal.SIGTERM, obey.cancel)
        sweeping = asyncio.create_task(_sweep(running, dead, Path(launch.metrics_path), observe))
        await channel.send(Ready(running.loaded.snapshot.digest, {"admin": admin.getsockname()[1]}))
        await asyncio.wait({obey, sweeping}, return_when=asyncio.FIRST_COMPLETED)
        sweeping.cancel()
        for server, serving in servers:
            server.should_exit = server.force_exit = True
            await serving


def _server(app: Callable[..., Any], listener: socket.socket) -> tuple[QuietServer, asyncio.Task[None]]:
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        loop="none",
    )
    server = QuietServer(config)
    return server, asyncio.create_task(server.serve(sockets=[listener]))


async def _obey(channel: Channel, running: Control, launch: Launch, dead: asyncio.Queue[list[str]]) -> None:
    while True:
        match await channel.receive():
            case Drain() | None:
                return
            case Dead(process_ids=process_ids):
                dead.put_nowait(process_ids)
            case Reload(digest=digest, texts=texts):
                await channel.send(Reloaded(digest, await _reload(running, Path(launch.config), texts)))
            case _:
                pass


async def _reload(running: Control, config: Path, texts: Texts) -> str:
    try:
        await running.adopt(await asyncio.to_thread(read_manifest, config, given=texts))
    except (StartRefused, StoreUnavailable) as refused:
        return str(refused)
    return ""


async def _sweep(running: Control, dead: asyncio.Queue[list[str]], metrics: Path, observe: Observe) -> None:
    """Settles what dead workers held at once, and whatever expired every few seconds; the dead are kept until it is done."""
    gone: set[str] = set()
    expires_at = 0.0
    while True:
        try:
            async with asyncio.timeout(SWEEP_S):
                died = await dead.get()
                gone.update(died)
                await asyncio.to_thread(_forget, metrics, died)
        except TimeoutError:
            pass
        try:
            op = Op.for_job(SystemClock(), observe)
            await sweep(op, running.sweeper, sorted(gone))
            gone.clear()
            if time.monotonic() >= expires_at:
                kept = running.loaded.snapshot
                await expire(op, running.sweeper, kept.retention_days, kept.bodies.retention_days)
                expires_at = time.monotonic() + EXPIRE_S
        except StoreUnavailable as away:
            observe(StoreDegraded("sweep", str(away), len(gone)))


def _forget(metrics: Path, process_ids: list[str]) -> None:
    """Takes the gauges of dead processes out of the metrics; their counters stay."""
    for process_id in process_ids:
        with contextlib.suppress(OSError):
            forget(metrics, process_id)


if __name__ == "__main__":
    uvloop.run(control(int(sys.argv[1])))
