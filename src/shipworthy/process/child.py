"""A process of ours, as the supervisor sees it: spawned, greeted, watched, respawned with bounded backoff."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from uuid import uuid4

from shipworthy.process.channel import Channel, Message, Ready
from shipworthy.process.nursery import Nursery, Process

BACKOFF_S_FIRST = 0.1
BACKOFF_S_MAX = 5.0
STEADY_S = 10.0
KILL_AFTER_S = 5.0
SEND_S_MAX = 2.0
"""How long a process that does not read may hold the supervisor up."""


class Child:
    """One process of its kind. Its id changes at every spawn: holds belong to a process, not to a place."""

    def __init__(
        self, kind: str, name: str, heard: Callable[[Child, Message], Awaitable[None]], nursery: Nursery
    ) -> None:
        self.kind = kind
        self.name = name
        self.process_id = ""
        self.ready = asyncio.Event()
        self.ports: dict[str, int] = {}
        self.deaths = 0
        self._heard = heard
        self._nursery = nursery
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._listener: asyncio.Task[None] | None = None
        self._spawned_s = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def spawn(self, sockets: tuple[socket.socket, ...] = ()) -> None:
        """Starts the process, which then waits to be greeted. Raises OSError when none is to be had."""
        ours, theirs = socket.socketpair()
        self.process_id = uuid4().hex
        self.ready.clear()
        with theirs:
            fds = [theirs.fileno(), *(each.fileno() for each in sockets)]
            try:
                self._process = await self._nursery.birth(self.kind, self.name, fds)
            except BaseException:
                ours.close()
                raise
        self._spawned_s = asyncio.get_running_loop().time()
        self._channel = await Channel.over(ours)
        self._listener = asyncio.create_task(self._listen(self._channel))

    async def send(self, message: Message) -> None:
        """Tells the process; one that is gone is noticed by ``wait``."""
        if self._channel is not None:
            try:
                async with asyncio.timeout(SEND_S_MAX):
                    await self._channel.send(message)
            except (OSError, TimeoutError):  # what it does not read now waits for it: whole, and in order
                return

    async def wait(self) -> int:
        """The exit status, once the process has ended (negative: the signal)."""
        assert self._process is not None
        status = await self._process.wait()
        if self._listener is not None:
            self._listener.cancel()
        if self._channel is not None:
            self._channel.close()
        lived_s = asyncio.get_running_loop().time() - self._spawned_s
        self.deaths = 1 if lived_s > STEADY_S else self.deaths + 1
        self.ready.clear()
        return status

    def backoff_s(self) -> float:
        """How long to wait before the next spawn: nothing after a first death."""
        return 0.0 if self.deaths <= 1 else min(BACKOFF_S_MAX, float(BACKOFF_S_FIRST * 2 ** (self.deaths - 1)))

    async def end(self, within_s: float) -> None:
        """Waits for the process to end by itself, then asks, then insists."""
        for step_s, asking in ((within_s, signal.SIGTERM), (KILL_AFTER_S, signal.SIGKILL), (KILL_AFTER_S, None)):
            if self._process is None or self._process.returncode is not None:
                return
            try:
                await asyncio.wait_for(self._process.wait(), step_s)
            except TimeoutError:
                if asking is not None:
                    self._signal(asking)

    def _signal(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    async def _listen(self, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            if isinstance(message, Ready):
                self.ports = message.ports
                self.ready.set()
            await self._heard(self, message)
