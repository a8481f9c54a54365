"""A peer on real sockets that says exactly the bytes that a test wants, and notes how it was left."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from shipworthy.adapters.providers.http import Endpoint, HttpAnswer, HttpTransport
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.model.route import Timeouts

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"content-length: 2\r\n\r\nhi"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
PATH = "/chat/completions"


class Talk:
    """One connection, from the peer's side."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number  # from 0, in the order of their arrival
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request, head and body. Raises IncompleteReadError when there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head + await self.reader.readexactly(int(length or b"0"))

    async def say(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        for piece in pieces:
            if self.writer.transport.is_closing():  # uvloop would raise RuntimeError
                raise ConnectionResetError
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def left(self) -> str:
        """How the other side went: closed or reset."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            return "reset"
        return "closed"


class Peer:
    """What a peer has seen."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self.talks: list[Talk] = []
        self.ends: list[str] = []
        self.open = 0


Serve = Callable[[Talk], Awaitable[None]]


@asynccontextmanager
async def peer(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """A server that does with each connection what ``serve`` says, and then waits until it is left."""
    seen, tasks = Peer(), set[asyncio.Task[None]]()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        talk = Talk(len(seen.talks), reader, writer)
        seen.talks.append(talk)
        seen.open += 1
        try:
            await serve(talk)
            seen.ends.append(await talk.left())
        except ConnectionResetError:
            seen.ends.append("reset")
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            seen.ends.append("closed")
        finally:
            seen.open -= 1
            writer.transport.abort()

    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # so that what is not read waits on the other side
    sock.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(accepted, sock=sock, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    seen.url = f"{'https' if tls else 'http'}://127.0.0.1:{seen.port}/v1"
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(*answers: bytes, seen: list[bytes] | None = None) -> Serve:
    """One answer after the other on each connection, whatever is asked; the last one again and again."""

    async def serve(talk: Talk) -> None:
        number = 0
        while True:
            request = await talk.request()
            if seen is not None:
                seen.append(request)
            await talk.say(answers[min(number, len(answers) - 1)])
            number += 1

    return serve


def saying(*pieces: bytes, pause_s: float = 0.0, then_close: bool = False) -> Serve:
    """One request is read, ``pieces`` are said one by one, and nothing more."""

    async def serve(talk: Talk) -> None:
        await talk.request()
        await talk.say(*pieces, pause_s=pause_s)
        if then_close:
            talk.writer.close()

    return serve


def transport_to(url: str, **fields: object) -> HttpTransport:
    """A transport with short bounds; ``fields`` are the endpoint's."""
    endpoint: dict[str, object] = {
        "base_url": url,
        "headers": {"authorization": "Bearer key-1"},
        "timeouts": Timeouts(connect_ms=1_000, first_token_ms=5_000, total_ms=5_000),
        "idle_ms_max": 5_000,
        "keepalive_ms": 4_000,
        "reply_bytes_max": 1 << 26,
    }
    return HttpTransport(Endpoint(**{**endpoint, **fields}), (PATH,))  # type: ignore[arg-type]


def hasty(silence_ms: int = 200, connect_ms: int = 1_000) -> dict[str, object]:
    """Bounds that a test can wait for."""
    timeouts = Timeouts(connect_ms=connect_ms, first_token_ms=silence_ms, total_ms=silence_ms)
    return {"timeouts": timeouts, "idle_ms_max": silence_ms}


async def posted(transport: HttpTransport, body: bytes = b"{}", *, stream: bool = False) -> HttpAnswer:
    return await transport.post(PATH, body, traceparent="", request_id="id-1", stream=stream)


async def asked(transport: HttpTransport, body: bytes = b"{}", *, stream: bool = False) -> tuple[int, bytes]:
    """Status and body of one request."""
    answer = await posted(transport, body, stream=stream)
    return answer.status, await rest(answer)


async def rest(answer: HttpAnswer) -> bytes:
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return len(pieces) % 3 > 0  # now and then enough for now

    while await answer.pour(take):
        pass
    return b"".join(pieces)


def tunnelling(answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n", seen: list[bytes] | None = None) -> Serve:
    """A proxy that answers CONNECT with ``answer``, then carries bytes to where it was asked to."""

    async def serve(talk: Talk) -> None:
        asked_for = await talk.request()
        if seen is not None:
            seen.append(asked_for)
        host, _, port = asked_for.split(b" ")[1].decode().rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await talk.say(answer)
        try:
            await asyncio.gather(carried(talk.reader, writer), carried(reader, talk.writer))
        finally:
            writer.transport.abort()

    return serve


async def carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    writer.transport.abort()


async def failure_of(waiting: Awaitable[object]) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as raised:
        await waiting
    return raised.value


async def refused(transport: HttpTransport) -> ProviderFailure:
    """The failure of a request of which no byte was sent."""
    failure = await failure_of(asked(transport))
    assert (failure.kind, failure.sent) == (FailureKind.CONNECT, False)
    return failure
