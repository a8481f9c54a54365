"""One connection, against a peer that says exactly what a test wants: bounds, silence, back-pressure, every way to end."""

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
from tests.contract.providers.authority import Authority
from tests.contract.providers.peers import (
    CHUNKED,
    HI,
    OK,
    PATH,
    Talk,
    answering,
    asked,
    hasty,
    peer,
    posted,
    rest,
    saying,
    transport_to,
)

from shipworthy.adapters.providers.framing import FRAMING_BYTES_MAX
from shipworthy.adapters.providers.wire import LINGER_S, READ_BUFFER_BYTES, Wire
from shipworthy.kit.calls import until
from shipworthy.model.errors import FailureKind, ProviderFailure

Play = Callable[[Awaitable[None]], None]
LARGE = b"x" * (32 << 20)


async def failure_of(waiting: Awaitable[object]) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as raised:
        await waiting
    return raised.value


# ------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_may_come_byte_by_byte(stream: bool, play: Play) -> None:
    said = b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + b"1;a=b\r\nh\r\n1\r\ni\r\n0\r\nx: y\r\n\r\n"

    async def played() -> None:
        async with peer(saying(*(said[at : at + 1] for at in range(len(said))))) as seen:
            transport = transport_to(seen.url)
            assert await asked(transport, stream=stream) == (200, b"hi")
            await transport.close()

    play(played())


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (OK + b"content-length: 3\r\n\r\nhi", FailureKind.BROKEN),
        (CHUNKED + b"2\r\nhi\r\n", FailureKind.BROKEN),
        (OK + b"content-le", FailureKind.BROKEN),
        (b"", FailureKind.BROKEN),
        (b"HTTP/1.1 100 Continue\r\n\r\n", FailureKind.BROKEN),
    ],
    ids=["length", "chunks", "head", "nothing", "interim only"],
)
def test_an_answer_that_ends_too_early_is_broken(said: bytes, kind: FailureKind, play: Play) -> None:
    async def played() -> None:
        async with peer(saying(said, then_close=True)) as seen:
            transport = transport_to(seen.url)
            failure = await failure_of(asked(transport))
            assert (failure.kind, failure.sent) == (kind, True)
            await transport.close()

    play(played())


@pytest.mark.parametrize("reset", [True, False])
def test_an_answer_without_a_length_ends_with_a_close_and_not_with_a_reset(reset: bool, play: Play) -> None:
    async def serve(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK + b"\r\nhi", pause_s=0.05)
        if reset:
            talk.writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0
        talk.writer.transport.abort()

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url)
            answer = await posted(transport)
            assert await answer.read() == b"hi"
            if reset:
                assert (await failure_of(answer.read())).kind is FailureKind.BROKEN
                assert (await failure_of(answer.read())).kind is FailureKind.BROKEN
            else:
                assert await answer.read() == b""
            await transport.close()

    play(played())


def test_what_came_before_the_end_is_given_first(play: Play) -> None:
    """A provider that breaks off has still said what it said; the failure stands in its place in the order."""

    async def played() -> None:
        async with peer(saying(CHUNKED + b"2\r\nhi\r\n", b"garbage\r\n")) as seen:
            transport = transport_to(seen.url)
            answer = await posted(transport, stream=True)
            await asyncio.sleep(0.05)
            assert await answer.read() == b"hi"
            assert (await failure_of(answer.read())).kind is FailureKind.BROKEN
            await until(lambda: seen.ends == ["reset"])
            await transport.close()

    play(played())


@pytest.mark.parametrize(
    "start", [OK + b"x: ", CHUNKED + b"2;", CHUNKED + b"0\r\nx: "], ids=["head", "chunk", "trailer"]
)
def test_framing_without_end_is_not_read_to_its_end(start: bytes, play: Play) -> None:
    async def played() -> None:
        async with peer(saying(start, b"y" * (4 * FRAMING_BYTES_MAX))) as seen:
            transport = transport_to(seen.url)
            assert (await failure_of(asked(transport))).kind is FailureKind.BROKEN
            await until(lambda: seen.ends == ["reset"])
            await transport.close()

    play(played())


# ------------------------------------------------------------------------------------------- silence


@pytest.mark.parametrize("pause_s", [0.03, 5.0], ids=["drips", "hangs"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_head_is_whole_within_the_bound(pause_s: float, stream: bool, play: Play) -> None:
    """A byte now and then does not count: a head has one bound, however it is cut."""
    said = OK + b"x: " + b"y" * 1_000

    async def played() -> None:
        async with peer(saying(*(said[at : at + 1] for at in range(len(said))), pause_s=pause_s)) as seen:
            transport = transport_to(seen.url, **hasty(200))
            began_s = time.monotonic()
            failure = await failure_of(asked(transport, stream=stream))
            assert (failure.kind, failure.sent) == (FailureKind.FIRST_TOKEN_TIMEOUT, True)
            assert 0.15 < time.monotonic() - began_s < 1.0
            await transport.close()

    play(played())


def test_a_body_is_bounded_by_its_pauses(play: Play) -> None:
    """Each piece begins the silence anew; the pause that is too long is the failure."""
    pieces = [CHUNKED] + [b"1\r\nx\r\n"] * 6

    async def played() -> None:
        async with peer(saying(*pieces, pause_s=0.1)) as seen:
            transport = transport_to(seen.url, **hasty(250))
            answer = await posted(transport, stream=True)
            began_s = time.monotonic()
            for _ in range(6):
                assert await answer.read() == b"x"
            failure = await failure_of(answer.read())
            assert failure.kind is FailureKind.BROKEN
            assert "idle_ms_max" in failure.detail
            assert 0.6 < time.monotonic() - began_s < 1.6
            await transport.close()

    play(played())


def test_a_kept_connection_has_the_bound_of_each_request(play: Play) -> None:
    """One alarm serves them all: a patient request before does not make a hasty one wait, nor the other way round."""

    async def played() -> None:
        async def serve(talk: Talk) -> None:
            await talk.request()
            await talk.say(HI)
            await talk.request()
            await asyncio.sleep(0.4)
            await talk.say(HI)
            await talk.request()

        async with peer(serve) as seen:
            transport = transport_to(seen.url, **{**hasty(200), "idle_ms_max": 1_000})
            assert (await asked(transport, stream=False))[0] == 200
            assert (await asked(transport, stream=True))[0] == 200  # 0.4 s of silence, 1 s allowed
            began_s = time.monotonic()
            assert (await failure_of(asked(transport, stream=False))).kind is FailureKind.FIRST_TOKEN_TIMEOUT
            assert 0.15 < time.monotonic() - began_s < 0.8
            assert len(seen.talks) == 1
            await transport.close()

    play(played())


# ------------------------------------------------------------------------------------------- back-pressure


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Authority, ssl.SSLContext]:
    authority = Authority(tmp_path)
    return authority, authority.server()


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("sized", [True, False])
def test_what_is_not_read_waits_and_nothing_of_it_is_lost(
    encrypted: bool, sized: bool, tls: tuple[Authority, ssl.SSLContext], play: Play
) -> None:
    """Also when the provider has closed long before the last byte is asked for; and our own pause is not its silence."""
    size = 24 << 20
    head = OK + (b"content-length: %d\r\n\r\n" % size if sized else b"\r\n")
    written = 0

    async def serve(talk: Talk) -> None:
        nonlocal written
        await talk.request()
        await talk.say(head)
        for _ in range(size >> 16):
            await talk.say(b"x" * 65_536)
            written += 65_536
        talk.writer.close()

    async def played() -> None:
        nonlocal written
        written = 0
        async with peer(serve, tls[1] if encrypted else None) as seen:
            transport = transport_to(seen.url, ca_file=tls[0].file if encrypted else None, **hasty(200))
            answer = await posted(transport)
            await asyncio.sleep(0.5)
            assert written < size  # it waits there
            got = len(piece := await answer.read())
            assert READ_BUFFER_BYTES < got <= READ_BUFFER_BYTES + (1 << 18)  # one read of the loop more
            while piece := await answer.read():
                got += len(piece)
            assert got == size
            await transport.close()

    play(played())


def test_its_silence_begins_anew_when_we_read_on(play: Play) -> None:
    """Its next byte is not due when it would have been, had we not paused."""
    much = b"x" * (READ_BUFFER_BYTES + 1)

    async def serve(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK + b"content-length: %d\r\n\r\n" % (len(much) + 2) + much, pause_s=1.4)
        await talk.say(b"hi")

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url, **hasty(600))
            answer = await posted(transport)
            await asyncio.sleep(1.1)  # the alarm rang at 0.6 and is set to 1.2
            assert await rest(answer) == much + b"hi"
            await transport.close()

    play(played())


def test_a_provider_that_falls_silent_while_we_pause_is_noticed_once_we_go_on(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(OK + b"content-length: 99999999\r\n\r\n" + b"x" * (1 << 20))) as seen:
            transport = transport_to(seen.url, **hasty(200))
            answer = await posted(transport)
            await asyncio.sleep(0.5)
            with pytest.raises(ProviderFailure, match="idle_ms_max"):
                await rest(answer)
            await transport.close()

    play(played())


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
