"""One connection, against a peer that says exactly what a test wants: bounds, silence, back-pressure."""

from __future__ import annotations

import asyncio
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
    Talk,
    asked,
    failure_of,
    hasty,
    peer,
    posted,
    rest,
    saying,
    transport_to,
)

from shipworthy.adapters.providers.framing import FRAMING_BYTES_MAX
from shipworthy.adapters.providers.wire import READ_BUFFER_BYTES
from shipworthy.kit.calls import until
from shipworthy.model.errors import FailureKind, ProviderFailure

Play = Callable[[Awaitable[None]], None]
LARGE = b"x" * (32 << 20)


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
