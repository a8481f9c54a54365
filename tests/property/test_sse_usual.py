"""Promise: events of one line each, which are read all at once, are the events that are read line by line."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shipworthy.model.dialects.sse import BLANK, Framed, SseSplitter, dispatch

USUAL = st.sampled_from([b"data: a\n\n", b"data: {}\n\n", b"data: data: b\n\n", b"data: \n\n", b"data:  \n\n"])
OTHER = st.sampled_from(
    [b"data: a\n\n\n", b"\n", b"data: x\ndata: y\n\n", b": said\n\n", b"event: n\ndata: a\n\n", b"data:b\n\n",
     b"data: c\n", b"data: "]
)  # fmt: skip
STREAMS = st.lists(USUAL, max_size=8) | st.lists(USUAL | USUAL | OTHER, max_size=12)


@settings(max_examples=800, deadline=None)
@given(STREAMS.map(b"".join), st.data())
def test_events_read_at_once_are_those_read_line_by_line(stream: bytes, data: st.DataObject) -> None:
    wanted: list[Framed] = []
    for block in stream.split(BLANK):
        dispatch(block, wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    splitter = SseSplitter()
    events: list[Framed] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += splitter.feed(stream[start:end])
    assert events + splitter.end() == wanted
