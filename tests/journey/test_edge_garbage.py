"""Promise: a connection leaves nothing to the collector, however it ends: while that looks for cycles, all streams wait."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest
import uvloop

from shipworthy.http.wire.answer import Answer
from shipworthy.http.wire.request import Request
from shipworthy.http.wire.server import Server

CONNECTIONS = 50
ASKED = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def app(request: Request, answer: Answer) -> None:
    await asyncio.sleep(0.001)
    answer.whole(200, b"", b"hi")


async def talk(port: int, said: bytes, *, hasty: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    if not hasty:
        await reader.read(20)
    writer.close()


@pytest.mark.parametrize(
    ("said", "hasty"),
    [(ASKED, False), (ASKED, True), (b"nonsense\r\n\r\n", False), (b"", True)],
    ids=["answered", "left before its answer", "malformed", "silent"],
)
def test_a_connection_leaves_nothing_to_the_collector(said: bytes, hasty: bool) -> None:
    async def scene() -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        server = Server(app, lambda *_: None, listener, 100)
        await server.start()
        port = listener.getsockname()[1]

        async def round() -> None:
            for _ in range(CONNECTIONS):
                await talk(port, said, hasty=hasty)
            async with asyncio.timeout(5):
                while server.connections:
                    await asyncio.sleep(0.01)

        await round()
        gc.collect()
        gc.disable()
        try:
            await round()
            return gc.collect()
        finally:
            gc.enable()
            await server.end(1.0)

    left = uvloop.run(scene())
    assert left < CONNECTIONS, f"{left / CONNECTIONS:.1f} objects a connection wait for the collector"
