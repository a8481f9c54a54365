"""A worker: the data plane in one event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

from shipworthy.bootstrap import DataWorker, launch_worker, read_manifest
from shipworthy.http.edge import DataPlane
from shipworthy.http.wire.bounds import CONNECTIONS_MAX, FILES_EACH
from shipworthy.http.wire.server import Server
from shipworthy.launch import Launch
from shipworthy.process.channel import Channel, Degraded, Drain, Ready, Reload, Reloaded
from shipworthy.process.interpreter import settle
from shipworthy.process.sockets import raise_file_limit
from shipworthy.process.tls import context_of, strangers
from shipworthy.process.voice import Voice, run

DRAIN_S_UNASKED = 20.0
FLUSH_S = 3.0
"""How long the last bytes of answers may take to reach their readers when the worker ends."""
COUNT_S = 1.0


async def work(channel_fd: int, listen_fd: int) -> None:
    """Serves until told to drain, or until the supervisor is gone."""
    channel = await Channel.over(socket.socket(fileno=channel_fd))
    launch = await channel.receive()
    if not isinstance(launch, Launch):
        return
    connections_max = min(CONNECTIONS_MAX, raise_file_limit() // FILES_EACH)
    voice = Voice(launch)
    loaded = read_manifest(Path(launch.config), given=launch.texts)
    voice.trace(loaded)
    async with launch_worker(launch, loaded, voice.observe, voice.took) as worker:
        plane = DataPlane(worker)
        listener, tls = socket.socket(fileno=listen_fd), context_of(loaded.deployment.server.bind)
        server = Server(plane, plane.malformed, listener, connections_max, tls, strangers(voice.observe))
        drain = asyncio.create_task(_obey(channel, worker, server))
        counting = [asyncio.create_task(voice.metrics.watch_loop()), asyncio.create_task(_count(voice, plane))]
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, drain.cancel)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C reaches the group; the supervisor drains
        settle()
        await server.start()
        await channel.send(Ready(worker.live.snapshot.digest, {}))
        await asyncio.wait({drain})
        worker.draining = True  # still listening: who asks is told so, instead of waiting for nobody
        server.part()
        await plane.drain(drain.result() if not drain.cancelled() else DRAIN_S_UNASKED)
        await server.end(FLUSH_S)
        for task in counting:
            task.cancel()
    await asyncio.to_thread(voice.close)


async def _count(voice: Voice, plane: DataPlane) -> None:
    """Keeps the gauge of requests in flight."""
    while True:
        voice.metrics.in_flight(plane.in_flight)
        await asyncio.sleep(COUNT_S)


async def _obey(channel: Channel, worker: DataWorker, server: Server) -> float:
    """Does what the supervisor says; returns how long to drain when it says so or is gone."""
    while True:
        match await channel.receive():
            case Drain(seconds=seconds):
                return seconds
            case None:
                return DRAIN_S_UNASKED
            case Degraded(reason=reason):
                worker.degraded = reason
            case Reload(digest=digest, texts=texts, models=models):
                refused = await worker.reload(texts, models)
                if not refused and (tls := context_of(worker.loaded.deployment.server.bind)) is not None:
                    server.renew(tls)
                await channel.send(Reloaded(digest, refused))
            case _:
                pass


def begin(channel_fd: int, listen_fd: int) -> None:
    """A process of its own, from here to its end: see ``forking``."""
    run("worker", work(channel_fd, listen_fd))
