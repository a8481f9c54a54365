"""The data plane's server alone, over real sockets, in front of an app that notes what reached it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import uvloop

from shipworthy.http.wire.answer import Answer
from shipworthy.http.wire.connection import App
from shipworthy.http.wire.request import Request
from shipworthy.http.wire.server import Server

SECONDS_MAX = 10.0


@dataclass(frozen=True)
class Spoken:
    """TLS, as both sides of a test mean it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


spoken: Spoken | None = None
"""None = plain HTTP. ``each_wire`` (conftest) sets it."""


@dataclass
class Echo:
    """Answers every request with its own body."""

    begun: list[str] = field(default_factory=list)
    whole: list[tuple[str, str, bytes]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    told: list[tuple[str, int, str]] = field(default_factory=list)

    async def __call__(self, request: Request, answer: Answer) -> None:
        self.begun.append(request.path)
        request.when_gone = lambda: self.gone.append(request.path)
        body = await read(request)
        if not request.gone:
            self.whole.append((request.method, request.path, body))
            answer.whole(200, b"content-type: text/plain\r\n", body)


async def read(request: Request) -> bytes:
    body = request.take()
    while not request.complete and not request.gone:
        await request.more()
        body += request.take()
    return body


@dataclass
class Client:
    """One connection to the server."""

    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, content: bytes) -> None:
        self.writer.write(content)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer; 100 too. Raises IncompleteReadError when there is none."""
        top = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = top[:-4].split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if headers.get("transfer-encoding") == "chunked":
            return int(first.split()[1]), headers, b"".join([chunk async for chunk in self._chunks()])
        return int(first.split()[1]), headers, await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"

    async def rest(self) -> bytes:
        """All until the server closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def leave(self) -> None:
        self.writer.transport.abort()

    def half_close(self) -> None:
        """Ends its own half of the connection beneath whatever is spoken."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as half:
            half.shutdown(socket.SHUT_WR)

    def stop_reading(self) -> None:
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def read_on(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def serving(
    app: App, connections_max: int = 100
) -> AsyncIterator[tuple[Server, Callable[[], Awaitable[Client]]]]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    told = app.told if isinstance(app, Echo) else []
    tls = (spoken.server, lambda peer, reason: told.append((peer, 0, reason))) if spoken else ()
    server = Server(app, lambda *fault: told.append(fault), listener, connections_max, *tls)
    await server.start()
    address = listener.getsockname()
    clients: list[Client] = []

    async def connect() -> Client:
        client = Client(server, *await asyncio.open_connection(*address, ssl=spoken and spoken.client))
        clients.append(client)
        return client

    try:
        yield server, connect
    finally:
        for client in clients:
            client.leave()
        await server.end(0.5)
        assert server.connections == 0, "no connection outlives its server"


def play(story: Callable[[Client], Coroutine[Any, Any, None]], app: App | None = None) -> None:
    """One client's story, told in time."""

    async def whole() -> None:
        async with serving(app or Echo()) as (_, connect), asyncio.timeout(SECONDS_MAX):
            await story(await connect())

    uvloop.run(whole())


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Waits until ``true`` is."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)
