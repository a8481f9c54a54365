"""The connection's own bounds, over real sockets: nothing that stands beside a request costs memory, time, or a place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from shipworthy.http.protocol import EdgeProtocol, without_upgrade
from shipworthy.http.wire import bounds

CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers how long it was."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    said = b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


def talk(client: Client) -> None:
    async def scenario() -> None:
        config = uvicorn.Config(app, http=EdgeProtocol, ws="none", lifespan="off", log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: EdgeProtocol(config, ServerState(), {}), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(10):
                await client(reader, writer)
        finally:
            writer.transport.abort()
            server.close()
            await server.wait_closed()

    asyncio.run(scenario())


def test_a_trailer_without_end_is_cut_off() -> None:
    """The parser would put it together piece by piece: 50 MB of it held the loop for 20 s."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"3\r\nabc\r\n0\r\nx-trailer: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20:
                writer.write(b"a" * 65_536)
                sent += 65_536
                await writer.drain()
        assert sent < 16 << 20, "the connection is gone long before"

    talk(client)


def test_a_body_in_the_smallest_chunks_passes() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for _ in range(400):
            writer.write(b"1\r\na\r\n" * 500)
            await writer.drain()
        writer.write(b"0\r\nx-checksum: 1\r\n\r\n")
        assert (await reader.readuntil(b"200000")).startswith(b"HTTP/1.1 200")

    talk(client)


def test_blank_lines_between_requests_keep_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "HEAD_SECONDS_MAX", 0.3)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n0")
        writer.write(b"\r\n")
        assert b"408" in await reader.read()

    talk(client)


@pytest.mark.parametrize("wish", ["Upgrade: h2c", "UPGRADE: websocket"])
def test_a_wish_for_another_protocol_costs_no_body(wish: str) -> None:
    """Java's client sends it with every first request; the parser alone would answer as if the body were empty."""
    wished = f"connection: Upgrade, HTTP2-Settings\r\n{wish}\r\nhttp2-settings: AAEAAEAA\r\n".encode()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n" + wished + b"content-length: 5\r\n\r\nhello")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(1) == b"5"

    talk(client)


def test_only_the_field_itself_is_meant() -> None:
    said = b"POST / HTTP/1.1\r\nx-upgrade: 1\r\n\r\nupgrade: text"
    assert without_upgrade(said) == said
