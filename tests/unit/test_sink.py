"""The sink: whatever a provider puts into a payload, a client reads one event of it, and the same payload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.http.sink import HttpSink, framed
from shipworthy.http.wire.answer import Answer, field
from shipworthy.model.chat import Dialect
from shipworthy.model.dialects.sse import SseSplitter

lines = st.text(st.sampled_from('a{}":, '), min_size=1).filter(str.strip)


@given(st.lists(lines, min_size=1, max_size=4), st.sampled_from(["\n", "\r", "\r\n"]))
def test_a_payload_of_several_lines_is_one_event(said: list[str], line_end: str) -> None:
    payload = line_end.join(said).encode()
    assert SseSplitter().feed(framed(payload)) == [("", "\n".join(said).encode())]


class Pipe:
    """A connection whose client reads all."""

    paused = False
    keeping = True
    date = b""

    def __init__(self) -> None:
        self.written = bytearray()
        self.write: Callable[[bytes], None] = self.written.extend

    def now(self) -> float:
        return 0.0

    def soon(self, then: Callable[[], None]) -> None:
        then()

    async def drained(self) -> None: ...


def test_no_line_of_a_payload_is_read_as_a_field() -> None:
    """A provider's line cannot end the client's stream, nor name an event in it."""
    pipe = Pipe()
    answer = Answer(pipe, keep=True, bodiless=False, chunked=False)

    async def scenario() -> None:
        answer.start(200, b"")
        HttpSink(answer, Dialect.OPENAI_CHAT, "id").send([b'{"a":\n\ndata: [DONE]\n\nevent: error\n 1}'])

    asyncio.run(scenario())
    events = SseSplitter().feed(bytes(pipe.written).partition(b"\r\n\r\n")[2])
    assert events == [("", b'{"a":\n\ndata: [DONE]\n\nevent: error\n 1}')]


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\x00b", "a\x7fb"])
def test_no_value_ends_its_line(value: str) -> None:
    """Whoever names a use case or a model writes no header of his own."""
    with pytest.raises(ValueError, match="no header field"):
        field("x-shipworthy-model", value)
