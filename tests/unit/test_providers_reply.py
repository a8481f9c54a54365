"""Answers as events, on bytes with no network: any cut, any end, any garbage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.adapters.providers.reply import StreamedReply, WholeReply
from shipworthy.kit.calls import into, said
from shipworthy.model.chat import Event
from shipworthy.model.dialects.openai_chat import decode_reply
from shipworthy.model.errors import FailureKind, ProviderFailure

CHUNK = b'data: {"choices":[{"index":%d,"delta":{"content":"%s"},"finish_reason":%s}]}\n\n'
HELLO = CHUNK % (0, b"Hel", b"null") + b": a comment\n\n" + CHUNK % (0, b"lo", b'"stop"')
DONE = b"data: [DONE]\n\n"


class Pieces:
    """Implements ``transport.Answer`` over pieces in memory."""

    status = 200

    def __init__(self, pieces: Sequence[bytes], failure: ProviderFailure | None = None) -> None:
        self._pieces = list(pieces)
        self._failure = failure
        self.ended = ""

    def header(self, name: str) -> str:
        return {"x-request-id": "req-9"}.get(name, "")

    async def read(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._failure is not None:
            raise self._failure
        return b""

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        while piece := await self.read():
            if not take(piece):
                return True
        return False

    def finish(self) -> None:
        self.ended = "finished"

    def close(self) -> None:
        self.ended = "closed"


def taken(events: StreamedReply | WholeReply) -> list[Event]:
    """All of them: the first ones one by one, as the call stage does, then what comes together."""

    async def take() -> list[Event]:
        found: list[Event] = []
        async for event in events:
            found.append(event)
            break
        while await events.each(into(found)):
            pass
        return found

    return asyncio.run(take())


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(marks) if end > start]


@given(st.lists(st.integers(0, 1_000), max_size=40), st.booleans())
def test_however_the_bytes_are_cut_the_events_are_the_same(places: list[int], done: bool) -> None:
    """With [DONE] or, when every choice has finished, without it."""
    answer = Pieces(cut(HELLO + (DONE if done else b""), places))
    events = taken(StreamedReply(answer, 1, ()))
    assert said(events) == "Hello"
    assert [event.done for event in events] == [False, False, True]
    assert events[-1].raw == b"[DONE]"
    assert answer.ended == ("finished" if done else "")


@given(st.lists(st.integers(0, 1_000), max_size=40), st.lists(st.booleans(), max_size=40))
def test_whoever_has_enough_for_now_misses_nothing(places: list[int], wants: list[bool]) -> None:
    """As a client does that reads slowly; and nothing is given to whoever has not asked again."""
    left = list(wants)
    asked = False

    async def scenario() -> list[Event]:
        nonlocal asked
        found: list[Event] = []

        def take(came: Sequence[Event]) -> bool:
            nonlocal asked
            assert asked
            found.extend(came)
            asked = left.pop(0) if left else True
            return asked

        reply = StreamedReply(Pieces(cut(HELLO + DONE, places)), 1, ())
        asked = True
        while await reply.each(take):
            asked = True
        return found

    events = asyncio.run(scenario())
    assert said(events) == "Hello"
    assert [event.done for event in events] == [False, False, True]


def test_what_is_raised_where_events_are_taken_ends_the_answer() -> None:
    answer = Pieces([HELLO, DONE])

    def take(came: Sequence[Event]) -> bool:
        raise ZeroDivisionError

    async def scenario() -> bool:
        return await StreamedReply(answer, 1, ()).each(take)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())
    assert answer.ended == "closed"


def test_a_stream_that_is_over_leaves_nothing_to_the_collector() -> None:
    """What it holds, its request's body among it, is gone with it, not when somebody looks for garbage."""

    class Holder:
        def __init__(self) -> None:
            self.reply = StreamedReply(Pieces([HELLO[:50], HELLO[50:], DONE]), 1, ())
            self.events: list[Event] = []

        def take(self, came: Sequence[Event]) -> bool:
            self.events.extend(came)
            return len(self.events) != 1

    async def scenario() -> int:
        holder = Holder()
        while await holder.reply.each(holder.take):
            pass
        return len(holder.events)

    async def played() -> int:
        await scenario()
        gc.collect()
        gc.disable()
        try:
            assert await scenario() == 3
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(played()) == 0


def test_events_before_a_failure_are_given_before_it() -> None:
    found: list[Event] = []
    with pytest.raises(ProviderFailure):
        asyncio.run(StreamedReply(Pieces([HELLO + b"data: nonsense\n\n"]), 1, ()).each(into(found)))
    assert said(found) == "Hello"


@pytest.mark.parametrize(
    ("body", "choices", "kind"),
    [
        (b"", 1, FailureKind.BROKEN),
        (CHUNK % (0, b"Hel", b"null"), 1, FailureKind.BROKEN),
        (CHUNK % (0, b"Hel", b'""'), 1, FailureKind.BROKEN),  # some servers say "" until they say why
        (HELLO, 2, FailureKind.BROKEN),  # the second choice never finished
        (HELLO[:-20], 1, FailureKind.INVALID),  # the last line breaks off within its JSON
        (DONE, 1, FailureKind.INVALID),
        (HELLO + b'data: {"error":{"message":"overloaded"}}\n\n', 1, FailureKind.INVALID),
        (HELLO + b"data: nonsense\n\n", 1, FailureKind.INVALID),
        (b"<html>\n\n", 1, FailureKind.INVALID),
    ],
)
def test_an_end_that_is_none_is_a_failure(body: bytes, choices: int, kind: FailureKind) -> None:
    answer = Pieces([body] if body else [])
    with pytest.raises(ProviderFailure, match="x-request-id req-9") as raised:
        taken(StreamedReply(answer, choices, ()))
    assert (raised.value.kind, raised.value.sent, raised.value.status) == (kind, True, 200)
    assert answer.ended == "closed"


def test_what_follows_the_end_is_not_read() -> None:
    answer = Pieces([HELLO + DONE + b"data: nonsense\n\n", b"more"])
    assert said(taken(StreamedReply(answer, 1, ()))) == "Hello"


def test_a_failure_keeps_its_kind_and_loses_its_secrets() -> None:
    lost = ProviderFailure(FailureKind.BROKEN, "reset by k3y-k3y", sent=True, body=b"k3y-k3y")
    with pytest.raises(ProviderFailure) as raised:
        taken(StreamedReply(Pieces([CHUNK % (0, b"Hel", b"null")], lost), 1, ("k3y-k3y",)))
    assert (raised.value.kind, raised.value.detail) == (FailureKind.BROKEN, "reset by [secret] (x-request-id req-9)")
    assert raised.value.body == b"[secret]"


def test_after_a_failure_or_an_end_there_is_nothing() -> None:
    async def played() -> None:
        answer = Pieces([b"garbage\n\n"])
        reply = StreamedReply(answer, 1, ())
        with pytest.raises(ProviderFailure):
            await anext(reply)
        with pytest.raises(StopAsyncIteration):
            await anext(reply)
        unread = Pieces([HELLO])
        await StreamedReply(unread, 1, ()).aclose()
        assert unread.ended == "closed"

    asyncio.run(played())


@given(st.binary(max_size=200))
def test_a_whole_body_is_an_answer_or_a_failure(body: bytes) -> None:
    """Nothing else is raised, whatever the bytes."""
    answer = Pieces([body])
    try:
        events = taken(WholeReply(answer, decode_reply, ()))
    except ProviderFailure as failure:
        ended: tuple[str, str] = (failure.kind, answer.ended)
    else:
        ended = ("served" if [event.done for event in events] == [True] else "cut", answer.ended)
    assert ended in ((FailureKind.INVALID, "closed"), ("served", ""))
