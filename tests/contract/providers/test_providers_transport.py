"""The transport on real sockets: when a request was sent and when not, what is bounded, what is never done."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.kit.calls import Bench, a_chat, an_op, fitted, said, until
from shipworthy.kit.scripted_config import Line, Pace, Saying, ScriptedConfig
from shipworthy.kit.scripted_log import Ended, Log
from shipworthy.kit.scripted_server import ScriptedServer, closed_port
from shipworthy.manifest.specs import Secret
from shipworthy.model.chat import Request
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.model.route import Timeouts

Open = Callable[..., AbstractAsyncContextManager[Bench]]
Play = Callable[[Awaitable[None]], None]
Built = Callable[..., HttpUpstream]
KIND = "openai-compatible"


async def failure_of(upstream: HttpUpstream, request: Request | None = None) -> ProviderFailure:
    """The failure that a request ends in."""
    with pytest.raises(ProviderFailure) as raised:
        await Bench(upstream, Log()).all(request or a_chat(stream=True))
    await upstream.close()
    return raised.value


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that does what ``serve`` says, byte for byte; gives its base URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # so that what is not read waits on our side
    sock.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(accepted, sock=sock)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(
    head: bytes, body: bytes = b""
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await writer.drain()
        await asyncio.sleep(0.05)

    return serve


# ------------------------------------------------------------------------------------------- not sent


def test_a_refused_connection_is_not_sent(built: Built, play: Play) -> None:
    async def played() -> None:
        failure = await failure_of(built(KIND, f"http://127.0.0.1:{closed_port()}/v1"))
        assert (failure.kind, failure.sent, failure.status) == (FailureKind.CONNECT, False, None)

    play(played())


def test_a_name_that_does_not_resolve_is_not_sent(built: Built, play: Play) -> None:
    async def played() -> None:
        failure = await failure_of(built(KIND, "http://no-such-host.invalid/v1"))
        assert (failure.kind, failure.sent) == (FailureKind.CONNECT, False)

    play(played())


def test_connecting_is_bounded(built: Built, play: Play) -> None:
    """A host that swallows packets costs connect_ms, not the operating system's two minutes."""

    async def played() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            stuffed = [socket.socket() for _ in range(4)]
            for sock in stuffed:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            upstream = built(KIND, f"http://127.0.0.1:{full.getsockname()[1]}/v1", Timeouts(connect_ms=150))
            failure = await failure_of(upstream)
            assert (failure.kind, failure.sent) == (FailureKind.CONNECT, False)
            assert 0.1 < loop.time() - began_s < 1.0
            for sock in stuffed:
                sock.close()

    play(played())


def test_a_cancel_while_connecting_leaves_nothing(built: Built, play: Play) -> None:
    async def played() -> None:
        before = asyncio.all_tasks()
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            stuffed = [socket.socket() for _ in range(4)]
            for sock in stuffed:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            upstream = built(KIND, f"http://127.0.0.1:{full.getsockname()[1]}/v1")
            waiting = asyncio.create_task(Bench(upstream, Log()).all(a_chat()))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await upstream.close()
            await until(lambda: asyncio.all_tasks() == before)
            for sock in stuffed:
                sock.close()

    play(played())


# ------------------------------------------------------------------------------------------- kept connections


def test_a_connection_that_the_provider_closed_meanwhile_is_noticed(bench: Open, play: Play) -> None:
    """The request goes over a fresh one, once: the closed one was seen before a byte was written."""

    async def played() -> None:
        async with bench(KIND) as b:
            assert b.server is not None
            for number in range(20):
                b.server.hang_up()  # no await between this and the request: the loop has not noticed
                await b.all(a_chat(f"number {number}"))
            assert b.log.received == 20
            assert b.server.connections_made == 20

    play(played())


def test_a_request_that_may_have_been_read_is_not_repeated(bench: Open, play: Play) -> None:
    """A provider that resets after reading may bill: whether to try again is the call stage's to decide."""

    async def played() -> None:
        async with bench(KIND, ScriptedConfig(script=(Line(fault="reset", after=1),))) as b:
            await b.all(a_chat())
            with pytest.raises(ProviderFailure) as raised:
                await b.all(a_chat())
            assert (raised.value.kind, raised.value.sent) == (FailureKind.BROKEN, True)
            assert b.log.received == 2

    play(played())


def test_connections_are_not_kept_beyond_keepalive(bench: Open, play: Play) -> None:
    async def played() -> None:
        async with bench(KIND, keepalive_ms=30) as b:
            assert b.server is not None
            for _ in range(3):
                await b.all(a_chat())
                await asyncio.sleep(0.06)
            assert b.server.connections_made == 3

    play(played())


def test_an_answer_that_goes_on_after_its_end_costs_the_connection_only(bench: Open, play: Play) -> None:
    """After [DONE] nobody waits: bytes that still come do not hold the exchange up, nor reach the next one."""
    lines = (Line(fault="no-end", times=0),)

    async def played() -> None:
        async with bench(KIND, ScriptedConfig(script=lines)) as b:
            assert b.server is not None
            for _ in range(3):
                async with asyncio.timeout(0.2):
                    assert said(await b.all(a_chat(stream=True))).endswith("Good morning.")
            server = b.server
            await until(lambda: not server.connections)

    play(played())


# ------------------------------------------------------------------------------------------- bounded


def test_a_slow_reader_holds_the_provider_back(bench: Open, play: Play) -> None:
    """What the client has not taken waits at the provider: 64 MiB are not buffered here."""
    kilobytes = Saying(contains="", say=("x" * 1_023 + " ") * 970)

    async def played() -> None:
        async with bench(KIND, ScriptedConfig(answers=(kilobytes,)), reply_bytes_max=1 << 30) as b:
            request = a_chat(stream=True, n=64)
            events = await b.upstream.open(an_op(), b.model, request, fitted(request))
            before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(3):
                await anext(events)
            await asyncio.sleep(0.3)
            assert b.log[0].ended is Ended.OPEN
            assert b.log[0].billed_output * 1_024 < 16 << 20  # socket buffers and little else
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 16 << 10
            await events.aclose()
            await until(lambda: b.log[0].ended is Ended.CLIENT_LEFT, within_s=0.1)

    play(played())


def test_a_cancelled_request_is_not_sent_to_its_end(built: Built, play: Play) -> None:
    """Closing politely would first deliver the rest of the body, and the provider would bill it."""
    got = 0
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await asyncio.sleep(0.2)
        try:
            while chunk := await reader.read(65_536):
                got += len(chunk)
        finally:
            gone.set()

    async def played() -> None:
        async with listening(serve) as base_url:
            upstream = built(KIND, base_url)
            request = a_chat("x" * (32 << 20))
            waiting = asyncio.create_task(Bench(upstream, Log()).all(request))
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with asyncio.timeout(2):
                await gone.wait()
            assert got < 1 << 20
            await upstream.close()

    play(played())


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"x-long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: a\r\n" % n for n in range(500)) + b"\r\n",
        b"HTTP/1.1 200 " + b"K" * 20_000 + b"\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
    ids=["long header", "many headers", "long reason", "not HTTP", "negative length", "two lengths"],
)
def test_a_head_beyond_its_bounds_is_broken(head: bytes, built: Built, play: Play) -> None:
    async def played() -> None:
        async with listening(answering(head)) as base_url:
            failure = await failure_of(built(KIND, base_url))
            assert (failure.kind, failure.sent) == (FailureKind.BROKEN, True)

    play(played())


# ------------------------------------------------------------------------------------------- never done


def test_cookies_are_not_kept_and_redirects_not_followed(built: Built, play: Play) -> None:
    """Neither can carry one tenant's state to another, or our key to another host."""
    heads: list[bytes] = []
    body = b'{"error":{"message":"moved"}}'
    answer = b"HTTP/1.1 307 Moved\r\nset-cookie: a=b\r\nlocation: /v1/elsewhere\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            heads.append(head)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(answer + body)

    async def played() -> None:
        async with listening(serve) as base_url:
            upstream = built(KIND, base_url)
            for _ in range(2):
                with pytest.raises(ProviderFailure, match="moved") as raised:
                    await Bench(upstream, Log()).all(a_chat())
                assert (raised.value.kind, raised.value.status) == (FailureKind.INVALID, 307)
            await upstream.close()
            assert len(heads) == 2
            assert b"cookie" not in heads[1].lower()

    play(played())


def test_the_environments_proxies_are_not_used(bench: Open, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where requests go is written in the manifest alone."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")

    async def played() -> None:
        async with bench(KIND) as b:
            assert (await b.all(a_chat()))[0].done

    play(played())


def test_a_proxy_is_used_when_the_manifest_names_one(built: Built, play: Play) -> None:
    async def played() -> None:
        async with ScriptedServer() as proxy:
            upstream = built(
                KIND,
                "http://provider.invalid/v1",
                proxy=Secret(f"http://user:pass@127.0.0.1:{proxy.port}", "env PROXY"),
            )
            failure = await failure_of(upstream)
            assert failure.kind is FailureKind.INVALID  # the script knows nothing at that address
            assert proxy.log[0].path == "http://provider.invalid/v1/chat/completions"
            assert proxy.log[0].headers["proxy-authorization"].startswith("Basic ")

    play(played())


def test_a_quiet_comment_keeps_a_stream_alive(built: Built, play: Play) -> None:
    """Servers that say ': still working' are heard; the events around it are whole."""
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":%s}]}\n\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + chunk % b"null")
        for _ in range(6):
            await asyncio.sleep(0.05)
            writer.write(b": still working\n\n")
        writer.write(chunk % b'"stop"')  # closes without [DONE]

    async def played() -> None:
        async with listening(serve) as base_url:
            upstream = built(KIND, base_url, Timeouts(first_token_ms=150), idle_ms_max=150)
            events = await Bench(upstream, Log()).all(a_chat(stream=True))
            assert said(events) == "hihi"
            assert events[-1].done
            await upstream.close()

    play(played())


def test_closing_ends_what_runs(bench: Open, play: Play) -> None:
    """At shutdown streams that outlived the drain fail; they do not hang."""

    async def played() -> None:
        async with bench(KIND, ScriptedConfig(pace=Pace(inter_token_ms=50))) as b:
            request = a_chat(stream=True)
            events = await b.upstream.open(an_op(), b.model, request, fitted(request))
            await anext(events)
            await b.upstream.close()
            with pytest.raises(ProviderFailure) as raised:
                async for _ in events:
                    pass
            assert raised.value.kind is FailureKind.BROKEN
            await until(lambda: b.log[0].ended is Ended.CLIENT_LEFT, within_s=0.1)

    play(played())
