"""Connections that are kept: only after a whole answer and nothing else, the last used first, never too many or too long."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest
from tests.contract.providers.peers import CHUNKED, HI, OK, Talk, answering, asked, peer, posted, rest, transport_to

from shipworthy.adapters.providers import pool
from shipworthy.kit.calls import until
from shipworthy.model.errors import FailureKind, ProviderFailure

Play = Callable[[Awaitable[None]], None]

KEPT: dict[str, bytes] = {
    "length": HI,
    "chunks": CHUNKED + b"2\r\nhi\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"2\r\nhi\r\n0\r\nx: y\r\n\r\n",
    "1.0 kept": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi",
    "an error": b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nhi",
    "a redirect": b"HTTP/1.1 307 There\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nhi",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + HI,
}
NOT_KEPT: dict[str, bytes] = {
    "close": OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi",
    "1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    "surplus": HI + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
    "surplus garbage": HI + b"\x00",
}


@pytest.mark.parametrize("name", [*KEPT, *NOT_KEPT])
def test_a_connection_is_kept_after_a_whole_answer_and_nothing_else(name: str, play: Play) -> None:
    async def played() -> None:
        async with peer(answering({**KEPT, **NOT_KEPT}[name])) as seen:
            transport = transport_to(seen.url)
            for _ in range(4):
                assert (await asked(transport))[1] == b"hi"
            assert len(seen.talks) == (1 if name in KEPT else 4)
            await until(lambda: seen.open == (1 if name in KEPT else 0))
            await transport.close()
            await until(lambda: seen.open == 0)

    play(played())


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_that_has_no_body_is_whole(status: bytes, play: Play) -> None:
    async def played() -> None:
        async with peer(answering(b"HTTP/1.1 " + status + b"\r\n\r\n")) as seen:
            transport = transport_to(seen.url)
            for _ in range(3):
                assert await asked(transport) == (int(status[:3]), b"")
            assert len(seen.talks) == 1
            await transport.close()

    play(played())


@pytest.mark.parametrize("waited_s", [0.0, 0.05], ids=["unnoticed by the loop", "noticed"])
def test_what_an_idle_connection_says_is_nobodys_answer(waited_s: float, play: Play) -> None:
    """One tenant's bytes, late or forged, never answer the next request."""
    forged = OK + b"content-length: 6\r\n\r\nforged"

    async def played() -> None:
        async with peer(answering(HI)) as seen:
            transport = transport_to(seen.url)
            for number in range(5):
                assert await asked(transport) == (200, b"hi")
                talk = seen.talks[number]
                if waited_s:
                    talk.writer.write(forged)
                    await asyncio.sleep(waited_s)
                    assert seen.open == 0
                else:
                    fd = talk.writer.get_extra_info("socket").fileno()
                    assert os.write(fd, forged) == len(forged)  # no await: our loop cannot have seen it
            await transport.close()

    play(played())


def test_the_last_used_is_used_first(play: Play) -> None:
    """So that the others grow old and are let go."""
    used: list[int] = []

    async def serve(talk: Talk) -> None:
        while True:
            await talk.request()
            used.append(talk.number)
            await talk.say(HI)

    async def played() -> None:
        used.clear()
        async with peer(serve) as seen:
            transport = transport_to(seen.url)
            await asyncio.gather(*(asked(transport) for _ in range(5)))
            assert len(seen.talks) == 5
            used.clear()
            for _ in range(10):
                await asked(transport)
            assert len(set(used)) == 1
            await transport.close()

    play(played())


def test_idle_connections_are_let_go(play: Play) -> None:
    """At the provider too, not only when the next request comes."""

    async def played() -> None:
        async with peer(answering(HI)) as seen:
            transport = transport_to(seen.url, keepalive_ms=60)
            await asyncio.gather(*(asked(transport) for _ in range(5)))
            assert seen.open == 5
            await until(lambda: seen.open == 0, within_s=1.0)
            assert await asked(transport) == (200, b"hi")
            await transport.close()

    play(played())


def test_a_connection_in_use_outlives_its_keepalive(play: Play) -> None:
    async def serve(talk: Talk) -> None:
        for _ in range(2):
            await talk.request()
            await talk.say(CHUNKED + b"2\r\nhi\r\n", pause_s=0.2)
            await talk.say(b"0\r\n\r\n")

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url, keepalive_ms=60)
            for _ in range(2):
                assert await asked(transport) == (200, b"hi")
            assert len(seen.talks) == 1
            await transport.close()

    play(played())


def test_no_more_than_so_many_are_kept(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEPT_MAX", 2)

    async def played() -> None:
        async with peer(answering(HI)) as seen:
            transport = transport_to(seen.url)
            await asyncio.gather(*(asked(transport) for _ in range(6)))
            await until(lambda: seen.open == 2)
            await transport.close()

    play(played())


def test_none_is_kept_where_the_manifest_says_so(play: Play) -> None:
    requests: list[bytes] = []

    async def played() -> None:
        requests.clear()
        async with peer(answering(HI, seen=requests)) as seen:
            transport = transport_to(seen.url, keepalive_ms=0)
            for _ in range(3):
                await asked(transport)
            await until(lambda: seen.open == 0)
            assert len(seen.talks) == 3
            assert all(b"\r\nconnection: close\r\n" in request for request in requests)
            await transport.close()

    play(played())


def test_a_provider_that_closes_every_fresh_connection_has_seen_nothing(play: Play) -> None:
    """Dialled again once, then given up; what may have been sent is told from what was not."""

    async def serve(talk: Talk) -> None:
        talk.writer.transport.abort()

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url)
            for _ in range(5):
                with pytest.raises(ProviderFailure) as raised:
                    await asked(transport)
                failure = raised.value
                assert (failure.kind, failure.sent) in [(FailureKind.CONNECT, False), (FailureKind.BROKEN, True)]
            assert len(seen.talks) <= 5 * pool.DIALS_MAX
            await transport.close()

    play(played())


def test_each_request_is_on_the_wire_once(play: Play) -> None:
    """While half of all answers are cut off and connections are closed under our feet."""
    requests: list[bytes] = []

    async def serve(talk: Talk) -> None:
        while True:
            requests.append(await talk.request())
            if len(requests) % 4 == 0:
                talk.writer.transport.abort()
            elif len(requests) % 4 == 1:
                await talk.say(OK + b"content-length: 9\r\n\r\nhi")
                talk.writer.transport.abort()
            else:
                await talk.say(HI)
                if len(requests) % 4 == 2:
                    talk.writer.transport.abort()

    async def played() -> None:
        requests.clear()
        async with peer(serve) as seen:
            transport = transport_to(seen.url)

            async def one(number: int) -> None:
                try:
                    answer = await posted(transport, b"[%d]" % number)
                    assert await rest(answer) == b"hi"
                except ProviderFailure as failure:
                    assert failure.sent or b"[%d]" % number not in b"".join(requests)  # noqa: PT017

            for start in range(0, 200, 8):
                await asyncio.gather(*(one(number) for number in range(start, start + 8)))
            bodies = [request.rpartition(b"\r\n\r\n")[2] for request in requests]
            assert len(bodies) == len(set(bodies))
            assert len(bodies) > 100
            await transport.close()
            await until(lambda: seen.open == 0)

    play(played())
