"""The sink: whatever a provider puts into a payload, a client reads one event of it, and the same payload."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.http.sink import HttpSink, framed
from shipworthy.model.chat import Dialect
from shipworthy.model.dialects.sse import SseSplitter

lines = st.text(st.sampled_from('a{}":, '), min_size=1).filter(str.strip)


@given(st.lists(lines, min_size=1, max_size=4), st.sampled_from(["\n", "\r", "\r\n"]))
def test_a_payload_of_several_lines_is_one_event(said: list[str], line_end: str) -> None:
    payload = line_end.join(said).encode()
    assert SseSplitter().feed(framed(payload)) == [("", "\n".join(said).encode())]


def test_no_line_of_a_payload_is_read_as_a_field() -> None:
    """A provider's line cannot end the client's stream, nor name an event in it."""
    sent: list[Mapping[str, Any]] = []

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    async def scenario() -> None:
        sink = HttpSink(send, Dialect.OPENAI_CHAT, "id")
        await sink.send(b'{"a":\n\ndata: [DONE]\n\nevent: error\n 1}')

    asyncio.run(scenario())
    events = SseSplitter().feed(b"".join(message["body"] for message in sent))
    assert events == [("", b'{"a":\n\ndata: [DONE]\n\nevent: error\n 1}')]
