"""The supervisor: brings everything up in order, keeps it up, reloads it, and takes it down in order. It serves no request.

up      manifest → PostgreSQL → schema → local models → sockets → control plane, workers
keep    a dead worker, model, or database is started again; a dead worker's holds are swept
reload  SIGHUP or a changed file: a good manifest replaces the old one, a bad one changes nothing
down    SIGTERM or SIGINT: workers drain, then the control plane, the models, and PostgreSQL last
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from shipworthy.adapters.providers.reach import ModelServer
from shipworthy.adapters.telemetry.fanout import fan
from shipworthy.launch import Launch
from shipworthy.manifest.deployment import Deployment
from shipworthy.manifest.load import Loaded
from shipworthy.model.errors import StartRefused, StoreUnavailable
from shipworthy.model.observation import Failed, Lifecycle, Reloaded
from shipworthy.model.op import Observe
from shipworthy.process.certificates import place, refuse_ended, show
from shipworthy.process.channel import Dead, Degraded, Drain, Message, Ready, Reload
from shipworthy.process.channel import Reloaded as Answer
from shipworthy.process.child import BACKOFF_S_MAX, Child
from shipworthy.process.forking import CONTROL, WORKER
from shipworthy.process.ground import Ground, refused
from shipworthy.process.interpreter import SWITCH_S
from shipworthy.process.nursery import Nursery
from shipworthy.process.sockets import bind
from shipworthy.process.watch import Watch
from shipworthy.standard import read_manifest

LOOK_S = 0.2
DEAD_REMEMBERED = 100
START_S_MAX = 60.0
SETTLE_S = 12.0
"""Beyond the drain: time for what was cut to be settled and recorded."""
EARLIER_S = 40.0
"""Longer than a worker goes on whose supervisor was killed: its drain, and its settlement."""

Progress = Callable[[str], None]


class Supervisor:
    """One server: ``run`` returns when it was told to stop."""

    def __init__(self, config: Path, *, migrate: bool, observe: Observe, progress: Progress, nursery: Nursery) -> None:
        self.config = config
        self.loaded: Loaded = read_manifest(config)
        self._metrics = tempfile.TemporaryDirectory(prefix="shipworthy-metrics-")
        self._observe = observe
        self.ground = Ground(self.loaded, migrate=migrate, observe=lambda said: self._observe(said), progress=progress)
        self.started = asyncio.Event()
        self.address = ""
        self.admin_address = ""
        self._nursery = nursery
        self._grounded = asyncio.Event()
        self._stopping = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._watch = Watch(self.loaded.files)
        self._workers = [
            Child(WORKER, f"worker {n + 1}", self._hear, nursery) for n in range(self.loaded.deployment.server.workers)
        ]
        self._control = Child(CONTROL, "control", self._hear, nursery)
        self._dead: deque[str] = deque(maxlen=DEAD_REMEMBERED)
        self._earlier: list[str] = []  # workers of servers before this one that held something when it started
        self._refused = ""  # why the newest manifest is not in force
        self._listener: socket.socket | None = None

    async def run(self) -> None:
        """Serves until SIGTERM, SIGINT or ``stop``. Raises StartRefused when it cannot come up; nothing is left running."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)
        sys.setswitchinterval(SWITCH_S)  # what waits for PostgreSQL is not to wait for what loads meanwhile
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._stand(tasks)
            await self._start(tasks)
            if self._earlier:
                tasks.append(asyncio.create_task(self._bury()))
            await self._keep(tasks)
        finally:
            await self._down(tasks)

    def stop(self) -> None:
        self._stopping.set()

    async def _stand(self, tasks: list[asyncio.Task[None]]) -> None:
        """Brings up what processes stand on. Raises StartRefused here, in words, rather than in each of them."""
        up = asyncio.create_task(asyncio.to_thread(self.ground.up))
        try:
            self._observe = await asyncio.to_thread(_measured, self._observe, Path(self._metrics.name))
            tasks.append(asyncio.create_task(self._supervise(self._control, ())))  # it loads while the ground comes up
        finally:
            try:
                await up
            except StoreUnavailable as away:
                raise StartRefused(
                    "store.unreachable", f"The store does not answer: {away}", "Check store.url."
                ) from away
        holding = await self.ground.check()
        if self.loaded.deployment.store.path is not None:  # nobody else serves from an embedded store
            self._earlier.extend(holding)
        self._grounded.set()

    async def _start(self, tasks: list[asyncio.Task[None]]) -> None:
        """Adds what keeps the workers up to ``tasks``; returns when all are ready, or it was told to stop."""
        server = self.loaded.deployment.server
        listener = self._listener = bind(server.bind)
        self.address = "{}://{}:{}".format(server.bind.scheme, *listener.getsockname()[:2])
        tasks += [asyncio.create_task(self._supervise(worker, (listener,))) for worker in self._workers]
        for child in (self._control, *self._workers):
            await self._await_ready(child, tasks)
        if self._stopping.is_set():  # told to stop while it came up: there may be no address yet
            return
        admin = self.loaded.deployment.admin
        self.admin_address = f"{admin.scheme}://{admin.host}:{self._control.ports['admin']}"
        show(self.loaded.deployment, self._observe)
        self._observe(Lifecycle("supervisor", "ready", f"{self.address} · admin {self.admin_address}"))
        self.started.set()

    async def _await_ready(self, child: Child, tasks: list[asyncio.Task[None]]) -> None:
        ready = asyncio.create_task(child.ready.wait())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ready, stop, *tasks}, timeout=START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            stop.cancel()
        for task in tasks:
            if task.done():
                task.result()
        if not child.ready.is_set() and not self._stopping.is_set():
            raise refused(f"{child.name} did not become ready within {START_S_MAX:.0f} s")

    async def _supervise(self, child: Child, sockets: tuple[socket.socket, ...]) -> None:
        """Runs one process for as long as the server lives. Raises StartRefused when it dies before it was ever ready."""
        ever_ready = False
        while not self._stopping.is_set():
            try:
                await child.spawn(sockets)
            except OSError as reason:  # no process is to be had: a server that runs waits for one
                if not ever_ready:
                    raise refused(f"{child.name} cannot be started: {reason}") from reason
                self._observe(Lifecycle(child.name, "refused", str(reason)))
                await asyncio.sleep(BACKOFF_S_MAX)
                continue
            self._observe(Lifecycle(child.name, "spawned", f"pid {child.pid}"))
            await self._grounded.wait()
            await child.send(self._greet(child))
            waiting = asyncio.create_task(child.wait())
            was_ready = asyncio.create_task(child.ready.wait())
            await asyncio.wait({waiting, was_ready}, return_when=asyncio.FIRST_COMPLETED)
            ever_ready |= was_ready.done()
            was_ready.cancel()
            dead_id, status = child.process_id, await waiting
            if self._stopping.is_set():
                return
            self._observe(Lifecycle(child.name, "died", f"status {status}"))
            if not ever_ready:
                raise refused(f"{child.name} ended with status {status} before it was ready; its log says why")
            self._dead.append(dead_id)
            await self._control.send(Dead([dead_id]))
            await asyncio.sleep(child.backoff_s())

    async def _bury(self) -> None:
        """What earlier servers held is settled once their last worker must have ended, though its supervisor was killed."""
        await asyncio.sleep(EARLIER_S)
        self._dead.extend(self._earlier)
        await self._control.send(Dead(self._earlier))

    def _greet(self, child: Child) -> Message:
        return Launch(
            name=child.name,
            config=str(self.config),
            texts=dict(self.loaded.texts),
            process_id=child.process_id,
            store_url=self.ground.store_url,
            models=self.ground.model_servers(),
            metrics_path=self._metrics.name,
        )

    async def _keep(self, tasks: list[asyncio.Task[None]]) -> None:
        """Watches until told to stop."""
        while not self._stopping.is_set():
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.to_thread(self.ground.look)
            if self._reload_asked.is_set() or self._watch.changed():
                self._reload_asked.clear()
                await self._reload()
            await _either(self._stopping, LOOK_S)

    async def _reload(self) -> None:
        """Puts a good manifest in force everywhere; a bad one changes nothing and is told."""
        try:
            loaded = await asyncio.to_thread(read_manifest, self.config)
            fixed = fixed_at_start(self.loaded.deployment, loaded.deployment)
            if fixed:
                raise refused(f"{', '.join(fixed)} can't change while the server runs; restart it")
            refuse_ended(self.loaded.deployment, loaded.deployment)
            await asyncio.to_thread(self.ground.prepare, loaded)
            rehearse = await asyncio.to_thread(_rehearsal)
            rehearse(loaded, self.ground.model_servers())
        except Exception as no:  # noqa: BLE001  # whatever a file provokes, the manifest in force stays
            if not isinstance(no, StartRefused):
                self._observe(Failed.of("reload", no))
            self._observe(Reloaded(self.loaded.snapshot.digest, accepted=False, reason=str(no)))
            self._refused = str(no) or type(no).__name__
            await self._tell(Degraded(self._refused))
            return
        before, now = self.loaded.snapshot, loaded.snapshot
        old, new = self.loaded.deployment, loaded.deployment
        renewed = new.binds != old.binds
        rotated = renewed or (now.providers, new.alerts) != (before.providers, old.alerts)
        if now.digest != before.digest or rotated:  # the digest holds references, not secrets
            self.loaded = loaded
            if renewed:
                show(new, self._observe)
            await self._tell(Reload(now.digest, dict(loaded.texts), self.ground.model_servers()))
            self._observe(Reloaded(now.digest, accepted=True, reason=""))
        self._refused = ""
        await self._tell(Degraded(""))
        if loaded.files != self._watch.files:
            self._watch = Watch(loaded.files)
            self._reload_asked.set()  # once more: what changed since they were read is seen

    async def _tell(self, message: Message) -> None:
        for child in (self._control, *self._workers):
            await child.send(message)

    async def _hear(self, child: Child, message: Message) -> None:
        if isinstance(message, Ready) and self._refused:
            await child.send(Degraded(self._refused))
        if isinstance(message, Ready) and child is self._control and self._dead:
            await child.send(Dead(list(self._dead)))  # it may have been down when they died
        if isinstance(message, Answer) and message.refused:
            self._observe(Reloaded(message.digest, accepted=False, reason=f"{child.name}: {message.refused}"))
            if message.digest == self.loaded.snapshot.digest:
                self._reload_asked.set()

    async def _down(self, tasks: list[asyncio.Task[None]]) -> None:
        self._stopping.set()
        if self._listener is not None:
            self._listener.close()  # the workers have their own: after the last of them nobody is left waiting
        drain_s = self.loaded.deployment.server.drain_seconds
        self._observe(Lifecycle("supervisor", "draining", f"up to {drain_s:g} s"))
        await asyncio.gather(*(worker.send(Drain(drain_s)) for worker in self._workers))
        await asyncio.gather(*(worker.end(drain_s + SETTLE_S) for worker in self._workers))
        await self._control.send(Drain(1.0))
        await self._control.end(SETTLE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._nursery.close()
        await asyncio.to_thread(self.ground.down)
        self._metrics.cleanup()
        self._observe(Lifecycle("supervisor", "stopped", ""))


def fixed_at_start(old: Deployment, new: Deployment) -> list[str]:
    """The sections that differ and can't change while the server runs."""
    sections = {
        "server": (place(old.server.bind), old.server.workers) != (place(new.server.bind), new.server.workers),
        "admin": place(old.admin) != place(new.admin),
        "store": old.store != new.store,
        "keys": old.keys_file != new.keys_file,
        "telemetry": (old.telemetry.otlp_endpoint, place(old.telemetry.prometheus))
        != (new.telemetry.otlp_endpoint, place(new.telemetry.prometheus)),
    }
    return [name for name, differs in sections.items() if differs]


def _measured(observe: Observe, folder: Path) -> Observe:
    """``observe``, counted too. Loads what takes longest, while PostgreSQL starts: the store's library and the metrics'."""
    import shipworthy.adapters.store.assertions
    import shipworthy.adapters.store.migrate  # noqa: F401
    from shipworthy.adapters.telemetry.metrics import Metrics

    return fan(observe, Metrics(folder, "supervisor"))


def _rehearsal() -> Callable[[Loaded, Mapping[str, ModelServer]], None]:
    """What only a reload needs is loaded then, in a thread."""
    from shipworthy.bootstrap import rehearse

    return rehearse


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
