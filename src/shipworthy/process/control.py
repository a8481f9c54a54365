"""The control plane's process: admin API and console on ``admin``, /metrics on its own bind; sweeper, cost sums, budget
alerts and runaway watch.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from shipworthy.adapters.telemetry.metrics import exposition
from shipworthy.bootstrap import Control, launch_control, read_manifest
from shipworthy.console.app import make_console
from shipworthy.http.admin import make_admin
from shipworthy.http.metrics_page import metrics_app
from shipworthy.http.protocol import EdgeProtocol
from shipworthy.launch import Launch
from shipworthy.manifest.files import Texts
from shipworthy.model.errors import StartRefused, StoreUnavailable
from shipworthy.process.alerting import alert_for_ever
from shipworthy.process.channel import Channel, Dead, Drain, Ready, Reload, Reloaded
from shipworthy.process.serving import QuietServer
from shipworthy.process.sockets import bind
from shipworthy.process.spending import watch_spend_for_ever
from shipworthy.process.summing import sum_costs_for_ever
from shipworthy.process.sweeping import sweep_for_ever
from shipworthy.process.voice import Voice, run


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
        servers = {"admin": _server(make_admin(running.plane, make_console(running.plane)))}
        serving = [servers["admin"].begin(admin, deployment.admin, observe)]
        if deployment.telemetry.prometheus is not None:
            servers["prometheus"] = page = _server(metrics_app(Path(launch.metrics_path), exposition))
            where = deployment.telemetry.prometheus
            serving.append(page.begin(bind(where), where, observe))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C reaches the group; the supervisor says when
        dead: asyncio.Queue[list[str]] = asyncio.Queue()
        obey = asyncio.create_task(_obey(channel, running, launch, dead, servers))
        loop.add_signal_handler(signal.SIGTERM, obey.cancel)
        jobs = [
            asyncio.create_task(sweep_for_ever(running, dead, Path(launch.metrics_path), observe)),
            asyncio.create_task(alert_for_ever(running, observe)),
            asyncio.create_task(watch_spend_for_ever(running, observe)),
            asyncio.create_task(sum_costs_for_ever(running, observe)),
        ]
        await channel.send(Ready(running.loaded.snapshot.digest, {"admin": admin.getsockname()[1]}))
        await asyncio.wait({obey, *jobs}, return_when=asyncio.FIRST_COMPLETED)
        for server in servers.values():
            server.should_exit = server.force_exit = True
        await asyncio.gather(*serving)
        for job in jobs:
            if job.done():
                job.result()  # only a bug ends it: the traceback is logged, and the supervisor starts us again
            job.cancel()


def _server(app: Callable[..., Any]) -> QuietServer:
    config = uvicorn.Config(
        app,
        http=EdgeProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        loop="none",
    )
    return QuietServer(config)


async def _obey(
    channel: Channel,
    running: Control,
    launch: Launch,
    dead: asyncio.Queue[list[str]],
    servers: Mapping[str, QuietServer],
) -> None:
    while True:
        match await channel.receive():
            case Drain() | None:
                return
            case Dead(process_ids=process_ids):
                dead.put_nowait(process_ids)
            case Reload(digest=digest, texts=texts):
                refused = await _reload(running, Path(launch.config), texts)
                for name, where in running.loaded.deployment.control_binds.items():
                    servers[name].renew(where)
                await channel.send(Reloaded(digest, refused))
            case _:
                pass


async def _reload(running: Control, config: Path, texts: Texts) -> str:
    try:
        await running.adopt(await asyncio.to_thread(read_manifest, config, given=texts))
    except (StartRefused, StoreUnavailable) as refused:
        return str(refused)
    return ""


def begin(channel_fd: int) -> None:
    """A process of its own, from here to its end: see ``forking``."""
    run("control", control(channel_fd))
