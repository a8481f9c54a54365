"""The scripted provider as a real HTTP server on loopback, with every fault on the wire: for tests and benchmarks.

async with ScriptedServer(ScriptedConfig(script=(Line(fault="429", retry_after_s=2),))) as server:
    ...  # POST to server.base_url + "/chat/completions"; then look at server.log
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from typing import Any, cast

import httptools

from shipworthy.kit.scripted_config import ScriptedConfig
from shipworthy.kit.scripted_faults import APART_S
from shipworthy.kit.scripted_log import Ended, Entry, Log
from shipworthy.kit.scripted_plan import End, Piece, Plan
from shipworthy.kit.scripted_script import Script

BODY_BYTES_MAX = 64 << 20
WRITE_BUFFER_BYTES = 65_536
BASE_PATH = "/v1"
_LINGER_NOT = struct.pack("ii", 1, 0)  # close sends a reset


class ScriptedServer:
    """Serves a script on a port that the kernel chooses."""

    def __init__(self, config: ScriptedConfig | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        if config is not None and any(line.fault == "connect" for line in config.script):
            raise ValueError("a server that refuses connections cannot answer: use closed_port(), or kind: scripted")
        self.script = Script(config)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.connections_made = 0
        self.port = 0

    @property
    def log(self) -> Log:
        return self.script.log

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{BASE_PATH}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Closes the port and every connection; the log stays."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in tuple(self.connections):
            connection.abort()
        tasks = [connection.answering for connection in self.connections if connection.answering is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    def hang_up(self) -> None:
        """Ends every connection, idle or not, as a server does that is restarted; it has happened on return."""
        for connection in tuple(self.connections):
            connection.hang_up()

    async def __aenter__(self) -> ScriptedServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def closed_port() -> int:
    """A port on which nobody listens: connections are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Connection(asyncio.Protocol):
    """One connection: reads a request, carries out its plan, reads the next."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._entry: Entry | None = None
        self.answering: asyncio.Task[None] | None = None

    # -- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its ancestry
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._server.connections.add(self)
        self._server.connections_made += 1

    def connection_lost(self, reason: Exception | None) -> None:
        self._server.connections.discard(self)
        self._writable.set()
        if self._entry is not None:
            self._entry.end(Ended.CLIENT_LEFT)
        if self.answering is not None:
            self.answering.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what the parser tells

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_BYTES_MAX:
            self.close()

    def on_message_complete(self) -> None:
        if self.answering is not None and not self.answering.done():
            return self.close()  # pipelining is no part of what is played here
        keep = bool(self._parser.should_keep_alive())
        path = self._url.decode("latin-1").removeprefix(BASE_PATH)
        entry, plan = self._server.script.take(path, self._headers, bytes(self._body))
        self._entry = entry
        self.answering = asyncio.get_running_loop().create_task(self._answer(entry, plan, keep))
        return None

    # -- the answer

    async def _answer(self, entry: Entry, plan: Plan, keep: bool) -> None:
        if plan.head_delay_s:
            await asyncio.sleep(plan.head_delay_s)
        if plan.head:
            await self._say(_head(entry, plan, keep), plan)
            entry.status = plan.status
            entry.billed_input = plan.input_tokens
            await self._say_pieces(entry, plan)
        if plan.end is End.HANG:
            await asyncio.get_running_loop().create_future()
        entry.end(Ended.SAID if plan.end in (End.CLEAN, End.LINGER) else Ended.FAULT)
        if plan.end is End.LINGER:
            await asyncio.get_running_loop().create_future()
        if plan.end is End.RESET:
            self._reset()
        elif plan.end is End.FIN or not keep or plan.garbled:
            self.close()
        return

    async def _say_pieces(self, entry: Entry, plan: Plan) -> None:
        for piece in plan.pieces:
            if piece.delay_s:
                await asyncio.sleep(piece.delay_s)
            await self._say(_framed(piece, plan), plan)
            entry.billed_output += piece.tokens
        if plan.garbled:
            await asyncio.sleep(APART_S)
            await self._say(b"not a chunk size\r\n\r\n", plan)
        elif plan.length < 0 and plan.end is End.CLEAN:
            await self._say(b"0\r\n\r\n", plan)

    async def _say(self, payload: bytes, plan: Plan) -> None:
        assert self._transport is not None
        if plan.byte_delay_s is None:
            self._transport.write(payload)
        else:
            for index in range(len(payload)):
                await asyncio.sleep(plan.byte_delay_s)
                self._transport.write(payload[index : index + 1])
        if not self._writable.is_set():
            await self._writable.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def hang_up(self) -> None:
        assert self._transport is not None
        with socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        assert self._transport is not None
        raw: Any = self._transport.get_extra_info("socket")  # asyncio and uvloop hand out different wrappers
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()


def _head(entry: Entry, plan: Plan, keep: bool) -> bytes:
    length = "transfer-encoding: chunked" if plan.length < 0 else f"content-length: {plan.length}"
    lines = [
        f"HTTP/1.1 {plan.status} Scripted",
        f"content-type: {plan.content_type}",
        length,
        f"x-request-id: req-{entry.number}",
        *(f"{name}: {value}" for name, value in plan.headers),
    ]
    if not keep:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _framed(piece: Piece, plan: Plan) -> bytes:
    payload = b"data: " + piece.payload + b"\n\n" if plan.stream and piece.framed else piece.payload
    return b"%x\r\n%b\r\n" % (len(payload), payload) if plan.length < 0 else payload
