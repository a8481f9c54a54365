"""Promise: bad input gets a clear refusal, a lying provider a typed failure, whatever the bytes: nothing else is raised."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipworthy.model.dialects import anthropic_messages, openai_chat, openai_embeddings, openai_responses
from shipworthy.model.dialects.sse import SseSplitter
from shipworthy.model.errors import ProviderFailure, Refusal
from shipworthy.model.places import places


def words(said: str) -> list[str]:
    return said.split()


DIALECTS = [openai_chat, openai_embeddings, openai_responses, anthropic_messages]
STREAMED = [openai_chat, openai_responses, anthropic_messages]

NAMES = st.sampled_from(
    words(
    """model messages role content type text tools tool_calls function name arguments input instructions system source data
    image_url url file file_data output call_id id stream stream_options n max_tokens max_output_tokens user metadata
    choices delta message finish_reason usage prompt_tokens completion_tokens index error response item part item_id
    content_block logprobs tokens token stop_reason input_tokens output_tokens prompt variables format response_format
    prediction input_audio audio reasoning_content encrypted_content summary""")
) | st.text(max_size=8)  # fmt: skip
WORDS = st.sampled_from(
    words(
    """user assistant system tool text image_url input_audio file input_text output_text tool_use tool_result document base64
    url message function_call function_call_output reasoning content_block_delta content_block_start message_start
    message_delta text_delta response.output_text.delta response.completed response.output_item.done function mcp
    namespace web_search_call json_schema content thinking search_result data:image/png;base64,iVBOR""")
) | st.text(max_size=12)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=24
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": WORDS, "content": JSON}, optional={"tool_calls": JSON, "name": JSON, "audio": JSON}),
    max_size=4,
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "messages": MESSAGES | JSON, "input": JSON | st.lists(st.dictionaries(NAMES, JSON), max_size=4), "tools": JSON,
        "system": JSON, "max_tokens": st.just(5) | JSON, "prompt": JSON, "text": JSON, "stream_options": JSON,
        "metadata": JSON, "prediction": JSON, "response_format": JSON, "user": JSON, "instructions": JSON,
    },
)  # fmt: skip


def refused_or_read(dialect: ModuleType, body: bytes) -> Any:
    try:
        return dialect.decode_request(body)
    except Refusal as reason:
        refusal = reason
    assert refusal.code.startswith("decode.")
    assert refusal.message
    assert refusal.hint
    return None


@pytest.mark.parametrize("dialect", DIALECTS)
@given(body=st.binary(max_size=200))
def test_a_request_of_any_bytes_is_read_or_refused(dialect: ModuleType, body: bytes) -> None:
    refused_or_read(dialect, body)


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=300, deadline=None)
@given(body=BODIES | JSON, ascii_only=st.booleans())
def test_a_request_of_any_json_is_read_or_refused_and_every_part_has_its_place(
    dialect: ModuleType, body: Any, ascii_only: bool
) -> None:
    raw = json.dumps(body, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    request = refused_or_read(dialect, raw)
    if request is None:
        return
    spans = places(request.body, [part.path for part in request.parts] + [tool.path for tool in request.tools])
    for part in request.parts:
        start, end = spans[part.path]
        part.text.encode()  # what cannot be encoded was refused
        if not part.structured and part.text:
            assert json.loads(raw[start:end]) == part.text


@pytest.mark.parametrize("dialect", DIALECTS)
@given(body=BODIES, cut=st.integers(min_value=0, max_value=400))
def test_a_request_cut_anywhere_is_read_or_refused(dialect: ModuleType, body: Any, cut: int) -> None:
    refused_or_read(dialect, json.dumps(body).encode()[:cut])


@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_deep_request_is_refused_by_name(dialect: ModuleType, depth: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        body = b'{"model":"m","x":' + opening * depth + b"1" + closing * depth + b"}"
        with pytest.raises(Refusal) as refused:
            dialect.decode_request(body)
        assert refused.value.code == "decode.too_deep"


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=300, deadline=None)
@given(answer=JSON | st.dictionaries(NAMES, JSON, max_size=6))
def test_an_answer_of_any_json_is_read_or_a_typed_failure(dialect: ModuleType, answer: Any) -> None:
    payload = json.dumps(answer).encode()
    for decode in (dialect.decode_reply, getattr(dialect, "decode_event", dialect.decode_reply)):
        try:
            event = decode(payload)
        except ProviderFailure:
            continue
        assert event.raw == payload
        if event.deltas:
            places(payload, [delta.path for delta in event.deltas if delta.text])


@pytest.mark.parametrize("dialect", DIALECTS)
@given(payload=st.binary(max_size=200))
def test_an_answer_of_any_bytes_is_read_or_a_typed_failure(dialect: ModuleType, payload: bytes) -> None:
    for decode in (dialect.decode_reply, getattr(dialect, "decode_event", dialect.decode_reply)):
        with pytest.raises(ProviderFailure):
            decode(b"\x00" + payload)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_deep_answer_is_a_typed_failure(dialect: ModuleType) -> None:
    for payload in (b"[" * 100_000, b'{"choices":' + b"[" * 100_000, b'{"usage":' + b"[" * 5_000 + b"]" * 5_000 + b"}"):
        with pytest.raises(ProviderFailure):
            dialect.decode_reply(payload)


# ---------------------------------------------------------------------------------------------- server-sent events

LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"data:", b"data:  two", b"event: name", b"event:", b": comment", b"id: 7",
     b"retry: 5", b"", b"", b"", b"data: \xff"]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda lines: b"".join(line + end for line, end in lines))


def by_the_standard(stream: bytes) -> list[tuple[str, bytes]]:
    """The standard's algorithm, line by line, on the whole stream: what the splitter is held to."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events, name, data = [], "", []
    for line in [*text.split(b"\n"), b""]:
        if not line:
            if any(data):
                events.append((name, b"\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode(errors="replace")
    return events


@settings(max_examples=500)
@given(stream=STREAMS, bom=st.booleans(), data=st.data())
def test_a_stream_gives_the_same_events_however_it_is_cut(stream: bytes, bom: bool, data: st.DataObject) -> None:
    stream = b"\xef\xbb\xbf" + stream if bom else stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = SseSplitter()
    events = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += splitter.feed(stream[start:end])
    assert events + splitter.end() == by_the_standard(stream)


@given(stream=STREAMS)
def test_a_stream_byte_by_byte(stream: bytes) -> None:
    splitter = SseSplitter()
    events = [event for byte in stream for event in splitter.feed(bytes([byte]))]
    assert events + splitter.end() == by_the_standard(stream)


def test_a_stream_without_line_ends_is_a_failure_not_a_full_memory() -> None:
    splitter = SseSplitter(bytes_max=1_000)
    for _ in range(10):
        splitter.feed(b"x" * 100)
    with pytest.raises(ProviderFailure, match="larger than 1000 bytes"):
        splitter.feed(b"x")


@pytest.mark.parametrize("line", [b"<html>", b"unknown: x", b'{"error": "no"}', b"dat"])
def test_a_line_that_is_no_field_is_a_failure(line: bytes) -> None:
    """A proxy's error page in the middle of a stream is no gap that nobody notices."""
    with pytest.raises(ProviderFailure):
        SseSplitter().feed(b"data: a\n\n" + line + b"\n\n")
