"""One connection, while a request is being sent and while it ends: cancelled, refused early, broken, done with."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.authority import Authority
from tests.contract.providers.peers import (
    CHUNKED,
    HI,
    OK,
    PATH,
    Talk,
    answering,
    asked,
    failure_of,
    hasty,
    peer,
    posted,
    rest,
    saying,
    transport_to,
)

from shipworthy.adapters.providers.wire import LINGER_S, Wire
from shipworthy.kit.calls import until
from shipworthy.model.errors import FailureKind

Play = Callable[[Awaitable[None]], None]
LARGE = b"x" * (32 << 20)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Authority, ssl.SSLContext]:
    authority = Authority(tmp_path)
    return authority, authority.server()


# ------------------------------------------------------------------------------------------- sending


def test_an_answer_may_come_before_the_request_is_out(play: Play) -> None:
    """A refusal of a large body is heard; what was not sent by then is not sent any more."""
    got = 0

    async def serve(talk: Talk) -> None:
        nonlocal got
        got = len(await talk.reader.readuntil(b"\r\n\r\n"))
        await talk.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno", pause_s=0.2)
        try:
            while piece := await talk.reader.read(65_536):
                got += len(piece)
        finally:
            seen_end.set()

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url)
            assert await asked(transport, LARGE) == (413, b"no")
            async with asyncio.timeout(2):
                await seen_end.wait()
            assert got < 4 << 20
            assert seen.ends == ["reset"]
            await transport.close()

    seen_end = asyncio.Event()
    play(played())


def test_a_large_body_arrives_whole_and_its_connection_is_kept(play: Play) -> None:
    bodies: list[bytes] = []

    async def played() -> None:
        bodies.clear()
        async with peer(answering(HI, seen=bodies)) as seen:
            transport = transport_to(seen.url)
            large = bytes(range(256)) * (1 << 14)  # 4 MiB, no two slices alike at their seams
            for _ in range(2):
                assert await asked(transport, large) == (200, b"hi")
                assert bodies[-1].endswith(b"\r\n\r\n" + large)
            assert len(seen.talks) == 1
            await transport.close()

    play(played())


def test_a_peer_that_does_not_read_is_bounded_as_silence(play: Play) -> None:
    async def serve(talk: Talk) -> None:
        await asyncio.sleep(1.5)

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url, **hasty(200))
            failure = await failure_of(asked(transport, LARGE))
            assert (failure.kind, failure.sent) == (FailureKind.FIRST_TOKEN_TIMEOUT, True)
            await transport.close()

    play(played())


@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_connection_that_breaks_while_a_body_is_handed_over_is_a_failure(
    body: bytes, encrypted: bool, tls: tuple[Authority, ssl.SSLContext], play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at it a moment before saw nothing: what then happened to the bytes, nobody can tell."""
    monkeypatch.setattr(Wire, "stale", lambda wire: False)

    async def played() -> None:
        async with peer(answering(HI), tls[1] if encrypted else None) as seen:
            transport = transport_to(seen.url, ca_file=tls[0].file if encrypted else None)
            for number in range(3):
                assert await asked(transport) == (200, b"hi")
                fd = seen.talks[number].writer.get_extra_info("socket").fileno()
                with socket.socket(fileno=os.dup(fd)) as sock:
                    sock.shutdown(socket.SHUT_RDWR)
                failure = await failure_of(asked(transport, body))
                assert (failure.kind, failure.sent) == (FailureKind.BROKEN, True)
            await transport.close()

    play(played())


def test_no_header_can_become_two(play: Play) -> None:
    async def played() -> None:
        async with peer(answering(HI)) as seen:
            transport = transport_to(seen.url)
            for bad in ("a\r\nx: y", "a\nb", "é", "a\x00"):
                with pytest.raises(ValueError, match="one line"):
                    await transport.post(PATH, b"{}", traceparent="", request_id=bad, stream=False)
                with pytest.raises(ValueError, match="one line"):
                    await transport.post(PATH, b"{}", traceparent=bad, request_id="id", stream=False)
            assert seen.talks == []
            await transport.close()

    play(played())


# ------------------------------------------------------------------------------------------- ending

PHASES: dict[str, tuple[bytes, ...]] = {
    "waiting for a head": (),
    "half a head": (OK + b"x: ",),
    "interim": (b"HTTP/1.1 102 Processing\r\n\r\n",),
    "after the head": (CHUNKED,),
    "midway": (CHUNKED, b"2\r\nhi\r\n"),
    "before the last chunk": (CHUNKED, b"2\r\nhi\r\n", b"0\r\n"),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_cancel_ends_the_connection_at_once(
    phase: str, encrypted: bool, tls: tuple[Authority, ssl.SSLContext], play: Play
) -> None:
    """Whatever has come by then, the provider knows within a tenth of a second."""

    async def played() -> None:
        async with peer(saying(*PHASES[phase]), tls[1] if encrypted else None) as seen:
            transport = transport_to(seen.url, ca_file=tls[0].file if encrypted else None)

            async def one() -> None:
                answer = await posted(transport)
                try:
                    await rest(answer)
                finally:
                    answer.close()

            waiting = asyncio.create_task(one())
            await until(lambda: len(seen.talks) == 1)
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: len(seen.ends) == 1, within_s=0.1)
            if not encrypted:
                assert seen.ends == ["reset"]
            await transport.close()

    play(played())


def test_a_cancel_drops_what_is_unsent(play: Play) -> None:
    got = 0
    ended = asyncio.Event()

    async def serve(talk: Talk) -> None:
        nonlocal got
        await asyncio.sleep(0.2)
        try:
            while piece := await talk.reader.read(65_536):
                got += len(piece)
        finally:
            ended.set()

    async def played() -> None:
        nonlocal got
        got = 0
        ended.clear()
        async with peer(serve) as seen:
            transport = transport_to(seen.url)
            waiting = asyncio.create_task(asked(transport, LARGE))
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with asyncio.timeout(2):
                await ended.wait()
            assert got < 1 << 20
            assert len(seen.talks) == 1
            await transport.close()

    play(played())


def test_an_answer_that_is_done_with_has_a_moment_to_end(play: Play) -> None:
    """Its last chunk a little later: the connection is kept. Never, or with more to say: it is ended."""

    async def serve(talk: Talk) -> None:
        await talk.request()
        await talk.say(CHUNKED + b"2\r\nhi\r\n", pause_s=LINGER_S / 4)
        await talk.say(b"0\r\n\r\n")
        await talk.request()
        await talk.say(CHUNKED + b"2\r\nhi\r\n", *([b"1\r\nx\r\n"] * 40), pause_s=LINGER_S / 10)

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url)
            for _ in range(2):
                answer = await posted(transport, stream=True)
                assert (await answer.read()).startswith(b"hi")
                answer.finish()
                await asyncio.sleep(LINGER_S / 2)
            began_s = time.monotonic()
            await until(lambda: seen.ends == ["reset"])
            assert time.monotonic() - began_s < LINGER_S
            assert len(seen.talks) == 1
            await transport.close()

    play(played())


def test_closing_the_transport_fails_what_runs_and_takes_nothing_more(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(CHUNKED, b"2\r\nhi\r\n")) as seen:
            transport = transport_to(seen.url)
            answer = await posted(transport, stream=True)
            waiting = asyncio.create_task(asked(transport))
            await until(lambda: len(seen.talks) == 2)
            await asyncio.sleep(0.02)
            await transport.close()
            assert (await failure_of(waiting)).kind is FailureKind.BROKEN
            assert (await failure_of(rest(answer))).kind is FailureKind.BROKEN
            failure = await failure_of(asked(transport))
            assert (failure.kind, failure.sent) == (FailureKind.CONNECT, False)
            await until(lambda: seen.open == 0)

    play(played())


@pytest.mark.parametrize("said", [HI, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n"])
def test_a_request_leaves_nothing_for_the_collector(said: bytes, play: Play) -> None:
    """What is done with is gone at once: no cycle waits for a collection, which would stop everybody."""

    async def played() -> None:
        async with peer(answering(said)) as seen:
            transport = transport_to(seen.url)
            for _ in range(5):
                await asked(transport)
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    await asked(transport)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                left = [thing for thing in gc.garbage if type(thing).__module__.startswith(("shipworthy", "httptools"))]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            assert left == []
            await transport.close()

    play(played())
