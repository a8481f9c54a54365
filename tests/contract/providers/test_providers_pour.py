"""What a stream says is given on where it arrives: in order, within the bounds, to nobody who has had enough or is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.contract.providers.peers import (
    CHUNKED,
    HI,
    Talk,
    failure_of,
    hasty,
    peer,
    posted,
    saying,
    transport_to,
)

from shipworthy.adapters.providers.http import HttpAnswer
from shipworthy.kit.calls import until
from shipworthy.model.errors import FailureKind

Play = Callable[[Awaitable[None]], None]
PIECES = [b"1\r\n%d\r\n" % n for n in range(6)]
PAUSE_S = 0.03


class Taker:
    """Takes pieces, so many at a time."""

    def __init__(self, at_once: int = 1_000) -> None:
        self.at_once = at_once
        self.taken: list[bytes] = []
        self.asked = False
        self.in_task: set[asyncio.Task[None] | None] = set()

    def __call__(self, piece: bytes) -> bool:
        assert self.asked, "nobody asks"
        self.taken.append(piece)
        self.in_task.add(asyncio.current_task())
        self.asked = len(self.taken) % self.at_once > 0
        return self.asked

    async def of(self, answer: HttpAnswer) -> bool:
        self.asked = True
        return await answer.pour(self)


def test_a_piece_is_given_as_it_arrives_and_wakes_no_task(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(CHUNKED, *PIECES, b"0\r\n\r\n", pause_s=PAUSE_S)) as seen:
            transport = transport_to(seen.url)
            taker = Taker()
            assert not await taker.of(await posted(transport, stream=True))
            assert taker.taken == [b"%d" % n for n in range(6)]
            assert None in taker.in_task
            await transport.close()

    play(played())


def test_who_has_had_enough_is_given_nothing_until_it_asks_again(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(CHUNKED, *PIECES, b"0\r\n\r\n", pause_s=PAUSE_S)) as seen:
            transport = transport_to(seen.url)
            answer, taker = await posted(transport, stream=True), Taker(at_once=1)
            while await taker.of(answer):
                await asyncio.sleep(2.5 * PAUSE_S)
            assert b"".join(taker.taken) == b"012345"
            assert 1 < len(taker.taken) < 6, "what came meanwhile was given together"
            await transport.close()

    play(played())


def test_who_is_cancelled_is_given_nothing_more_and_the_provider_sees_it(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(CHUNKED, *PIECES, pause_s=PAUSE_S)) as seen:
            transport = transport_to(seen.url)
            answer, taker = await posted(transport, stream=True), Taker()

            async def pouring() -> None:
                try:
                    await taker.of(answer)
                finally:
                    taker.asked = False
                    answer.close()

            task = asyncio.create_task(pouring())
            await until(lambda: len(taker.taken) == 2)
            task.cancel()
            taker.asked = False  # from here on, not only from where the task hears of it
            await asyncio.wait({task})
            await until(lambda: seen.ends == ["reset"])
            assert len(taker.taken) == 2
            await transport.close()

    play(played())


def test_what_came_before_a_failure_is_given_before_it(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(CHUNKED, *PIECES, b"garbage\r\n", pause_s=PAUSE_S)) as seen:
            transport = transport_to(seen.url)
            answer, taker = await posted(transport, stream=True), Taker()
            assert (await failure_of(taker.of(answer))).kind is FailureKind.BROKEN
            assert b"".join(taker.taken) == b"012345"
            assert (await failure_of(taker.of(answer))).kind is FailureKind.BROKEN, "then and ever after"
            await transport.close()

    play(played())


def test_each_piece_begins_the_silence_anew(play: Play) -> None:
    async def serve(talk: Talk) -> None:
        await talk.request()
        await talk.say(CHUNKED)
        for piece in PIECES:
            await talk.say(piece, pause_s=0.1)
        await asyncio.sleep(5)

    async def played() -> None:
        async with peer(serve) as seen:
            transport = transport_to(seen.url, **hasty(250))
            answer, taker = await posted(transport, stream=True), Taker()
            began_s = time.monotonic()
            failure = await failure_of(taker.of(answer))
            assert "idle_ms_max" in failure.detail
            assert b"".join(taker.taken) == b"012345"
            assert 0.6 < time.monotonic() - began_s < 1.6
            await transport.close()

    play(played())


def test_an_answer_beyond_its_bound_is_refused_where_it_passes_it(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(CHUNKED, *PIECES, pause_s=PAUSE_S)) as seen:
            transport = transport_to(seen.url, reply_bytes_max=3)
            answer, taker = await posted(transport, stream=True), Taker()
            failure = await failure_of(taker.of(answer))
            assert (failure.kind, b"".join(taker.taken)) == (FailureKind.INVALID, b"012")
            await until(lambda: seen.ends == ["reset"])
            await transport.close()

    play(played())


def test_an_answer_that_is_here_already_is_given_at_once(play: Play) -> None:
    async def played() -> None:
        async with peer(saying(HI)) as seen:
            transport = transport_to(seen.url)
            answer, taker = await posted(transport), Taker()
            await asyncio.sleep(PAUSE_S)
            assert not await taker.of(answer)
            assert taker.taken == [b"hi"]
            await transport.close()

    play(played())
