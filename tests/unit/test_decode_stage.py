"""decode and encode as stages: read once, refuse by name, never hold up the loop; nothing leaves that was not asked for."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from shipworthy.model.chat import Dialect, Event, Request
from shipworthy.model.dialects import openai_chat
from shipworthy.model.dialects.openai_chat_usual_request import usual_request
from shipworthy.model.dialects.strict import Limits
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Credentials
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted
from shipworthy.ports import Arrival
from shipworthy.stages.decode import LARGE_BYTES, QUICK, QUICK_BYTES_MAX, THREADS_MAX, make_decode
from shipworthy.stages.encode import encode

OP = Op.for_cli(lambda observation: None)


def arrival(body: bytes, dialect: Dialect = Dialect.OPENAI_CHAT) -> Arrival:
    async def read_body() -> bytes:
        return body

    return Arrival(dialect=dialect, credentials=Credentials(), read_body=read_body)


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def decoded(**fields: Any) -> Request:
    return openai_chat.decode_request(chat(**fields))


# ---------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (Dialect.OPENAI_CHAT, chat()),
        (Dialect.OPENAI_RESPONSES, b'{"model":"m","input":"hi"}'),
        (Dialect.OPENAI_EMBEDDINGS, b'{"model":"m","input":"hi"}'),
        (Dialect.ANTHROPIC_MESSAGES, b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}'),
    ],
)
def test_the_arrivals_dialect_decides_who_reads(dialect: Dialect, body: bytes) -> None:
    request = asyncio.run(make_decode()(OP, arrival(body, dialect)))
    assert (request.dialect, request.body, [part.text for part in request.parts]) == (dialect, body, ["hi"])


def test_every_dialect_has_a_reader() -> None:
    for dialect in Dialect:
        with pytest.raises(Refusal):
            asyncio.run(make_decode()(OP, arrival(b"{}", dialect)))


LIMITS = Limits(
    depth_max=4, values_max=20, messages_max=2, parts_max=3, tools_max=2, model_chars_max=3, end_user_chars_max=3
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"messages": [{"role": "user", "content": "a"}] * 3}, "decode.too_many", "messages"),
        ({"messages": [{"role": "user", "content": ["a", "b", "c", "d"]}]}, "decode.too_many", "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a", "b"]}] * 2}, "decode.too_many", "content parts"),
        ({"tools": [{}, {}, {}]}, "decode.too_many", "tools"),
        ({"model": "long"}, "decode.wrong_type", "model"),
        ({"user": "long"}, "decode.wrong_type", "user"),
        ({"x": [[[[]]]]}, "decode.too_deep", None),
        ({"x": [[]] * 20}, "decode.too_many", "body"),
    ],
)
def test_everything_has_a_named_maximum(fields: dict[str, Any], code: str, field: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        openai_chat.decode_request(chat(**fields), LIMITS)
    assert refused.value.code == code
    assert refused.value.facts.get("field") == field


def test_a_request_at_every_maximum_is_read() -> None:
    body = chat(
        messages=[{"role": "user", "content": ["a", "b"]}, {"role": "user", "content": "c"}], model="abc", user="abc"
    )
    assert len(openai_chat.decode_request(body, LIMITS).parts) == 3


@pytest.mark.parametrize(
    "content",
    [[{"type": "text", "text": "x" * LARGE_BYTES}], "x" * (QUICK_BYTES_MAX + 1)],
    ids=["the general reader's", "very large"],
)
def test_what_takes_long_to_read_is_read_in_few_threads(content: Any) -> None:
    seen: list[str] = []
    decode = make_decode()
    large = chat(messages=[{"role": "user", "content": content}])

    async def run() -> None:
        await asyncio.gather(*(decode(OP, arrival(large)) for _ in range(8)))
        seen.extend(thread.name for thread in threading.enumerate() if thread.name.startswith("decode"))

    asyncio.run(run())
    assert 1 <= len(seen) <= THREADS_MAX


def test_large_bodies_that_are_read_quickly_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come at once, everybody else has a turn of the loop after each of them."""
    turns: list[int] = []
    turn = 0

    def quick(body: bytes, limits: Limits) -> Request | None:
        turns.append(turn)
        return usual_request(body, limits)

    monkeypatch.setitem(QUICK, Dialect.OPENAI_CHAT, (quick, openai_chat.read_request))
    decode = make_decode()
    large = chat(messages=[{"role": "user", "content": "x" * LARGE_BYTES}])

    async def run() -> None:
        nonlocal turn
        reading = asyncio.gather(*(decode(OP, arrival(large)) for _ in range(8)))
        while not reading.done():
            turn += 1
            await asyncio.sleep(0)
        assert {request.body for request in await reading} == {large}

    asyncio.run(run())
    assert len(set(turns)) == len(turns) == 8


def test_a_refusal_in_a_thread_is_the_refusal() -> None:
    body = b'{"model":"m","messages":' + b" " * LARGE_BYTES + b'[],"model":"n"}'
    with pytest.raises(Refusal) as refused:
        asyncio.run(make_decode()(OP, arrival(body)))
    assert refused.value.code == "decode.duplicate_key"


@pytest.mark.parametrize(
    "content",
    ["x" * 10_000_000, 'quoted "text"\n' * 600_000, [{"type": "text", "text": "y" * 700}] * 14_000],
    ids=["plain", "escapes", "many parts"],
)
def test_ten_megabytes_do_not_hold_up_the_loop(content: Any) -> None:
    """The loop is never away for long while a body of 10 MB is read: the bound is loose, for busy machines."""
    decode = make_decode()
    body = chat(messages=[{"role": "user", "content": content}])

    async def run() -> float:
        reading = asyncio.ensure_future(decode(OP, arrival(body)))
        worst, before = 0.0, time.perf_counter()
        while not reading.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst, before = max(worst, now - before), now
        assert (await reading).body == body
        return worst

    worst = asyncio.run(run())
    assert worst < 0.5, f"the loop was away for {worst * 1000:.0f} ms"


@pytest.mark.parametrize(
    "entries",
    [b"[],", b"{},", b"0,", b'"",', b'"" ', b'{"a":', b'"\\\\",', b'"\\",'],
    ids=["arrays", "objects", "numbers", "strings", "no commas", "deep", "backslashes", "unclosed"],
)
def test_ten_megabytes_of_nothing_are_refused_before_they_cost_memory(entries: bytes) -> None:
    decode = make_decode()
    body = b'{"model":"m","messages":[' + entries * (10_000_000 // len(entries))
    body += b"0]}"

    async def run() -> float:
        reading = asyncio.ensure_future(decode(OP, arrival(body)))
        worst, before = 0.0, time.perf_counter()
        while not reading.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst, before = max(worst, now - before), now
        with pytest.raises(Refusal) as refused:
            await reading
        assert refused.value.code.startswith("decode.")
        return worst

    worst = asyncio.run(run())
    assert worst < 0.5, f"the loop was away for {worst * 1000:.0f} ms"


# ---------------------------------------------------------------------------------------------- upstream


def test_the_upstream_gets_the_clients_bytes_but_for_what_is_ours() -> None:
    body = b'{"messages": [ {"role":"user","content":"\\u00e9 \\"model\\""} ],"model":"gpt-4o" , "seed":1.0e0}'
    sent = openai_chat.upstream_body(openai_chat.decode_request(body), Fitted(50, 9, {}), "upstream")
    assert sent == (
        b'{"messages":[ {"role":"user","content":"\\u00e9 \\"model\\""} ],"model":"upstream","seed":1.0e0,"max_tokens":50}'
    )


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("asked", "cap", "sent"), [(100, 100, 100), (100, 40, 40)])
def test_the_cap_stands_where_the_client_put_its_own(field: str, asked: int, cap: int, sent: int) -> None:
    request = decoded(**{field: asked})
    body = json.loads(openai_chat.upstream_body(request, Fitted(cap, 9, {}), "u", cap_field="max_completion_tokens"))
    assert body[field] == sent
    assert {"max_tokens", "max_completion_tokens"} & body.keys() == {field}


def test_usage_is_asked_for_unless_the_provider_cannot() -> None:
    request = decoded(stream=True, stream_options={"include_obfuscation": False, "include_usage": False})
    asking = json.loads(openai_chat.upstream_body(request, Fitted(5, 9, {}), "u"))
    silent = json.loads(openai_chat.upstream_body(request, Fitted(5, 9, {}), "u", ask_usage=False))
    assert asking["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert silent["stream_options"] == {"include_obfuscation": False, "include_usage": False}
    assert "stream_options" not in json.loads(openai_chat.upstream_body(decoded(), Fitted(5, 9, {}), "u"))


# ---------------------------------------------------------------------------------------------- encode

CHUNK = b'{"id":"c","choices":[{"index":0,"delta":{"content":"a"}}]'
USAGE = b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'


def encoded(payload: bytes, **fields: Any) -> bytes:
    return encode(OP, decoded(**fields), openai_chat.decode_event(payload))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (CHUNK + b"}", CHUNK + b"}"),
        (CHUNK + b',"usage":null}', CHUNK + b"}"),
        (CHUNK + b', "usage": null , "x":1.0}', CHUNK + b',"x":1.0}'),
        (CHUNK + b',"usage":' + USAGE + b"}", CHUNK + b"}"),
        (b'{"usage":null,' + CHUNK[1:] + b"}", CHUNK + b"}"),
        (b'{"choices":[],"usage":' + USAGE + b"}", b""),
        (b"[DONE]", b"[DONE]"),
        (b'{"choices":[{"index":0,"delta":{"content":",\\"usage\\":null}"}}]}',) * 2,
        (b'{"choices":[],"x_groq":{"id":"r","usage":null}}',) * 2,
    ],
)
def test_a_client_that_did_not_ask_for_usage_gets_none(payload: bytes, expected: bytes) -> None:
    assert encoded(payload, stream=True) == expected


@pytest.mark.parametrize("payload", [CHUNK + b',"usage":null}', b'{"choices":[],"usage":' + USAGE + b"}", b"[DONE]"])
def test_a_client_that_asked_gets_the_providers_own_bytes(payload: bytes) -> None:
    assert encoded(payload, stream=True, stream_options={"include_usage": True}) == payload


def test_a_whole_answer_passes_unchanged() -> None:
    body = b'{ "choices":[{"index":0,"message":{"role":"assistant","content":"a"}}], "usage":' + USAGE + b"}"
    event = openai_chat.decode_reply(body)
    assert encode(OP, decoded(), event) == body
    assert event.done
    assert not event.usage_only


def test_what_is_left_of_a_payload_is_still_the_payload() -> None:
    """Whatever is cut, the rest decodes to the same deltas."""
    payload = CHUNK + b',"usage":null}'
    before = openai_chat.decode_event(payload)
    after = openai_chat.decode_event(encode(OP, decoded(stream=True), Event(raw=payload, deltas=before.deltas)))
    assert after.deltas == before.deltas


@pytest.mark.parametrize(("said", "hosted"), [({}, True), ({"search_context_size": "low"}, True), (None, False)])
def test_an_empty_object_asks_for_a_search(said: object, hosted: bool) -> None:
    """The provider's own example of a search is ``web_search_options={}``: egress and money all the same."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "web_search_options": said}
    tools = openai_chat.decode_request(json.dumps(body).encode(), Limits()).tools
    assert [(tool.name, tool.hosted) for tool in tools] == ([("web_search_options", True)] if hosted else [])


def test_a_message_without_content_is_read_all_the_same() -> None:
    """Promise 1: an assistant's turn often holds its tool calls and nothing else."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"q": "walrus"}'}}
    body = json.dumps({"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}).encode()
    parts = openai_chat.decode_request(body).parts
    assert any("walrus" in part.text for part in parts)


@pytest.mark.parametrize("dialect", [Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES, Dialect.ANTHROPIC_MESSAGES])
@pytest.mark.parametrize("kind", [[], {}, [1], {"a": 1}, 1, True])
def test_a_tool_of_a_type_that_is_none_is_a_hosted_one(dialect: Dialect, kind: Any) -> None:
    """Nobody here knows what it is, so it is the provider's to run, and needs the right to that."""
    said = {"input": "hi"} if dialect is Dialect.OPENAI_RESPONSES else {"messages": [{"role": "user", "content": "hi"}]}
    body = json.dumps({"model": "m", "max_tokens": 1, "tools": [{"type": kind}], **said}).encode()
    request = asyncio.run(make_decode()(OP, arrival(body, dialect)))
    assert [tool.hosted for tool in request.tools if tool.path[0] == "tools"] == [True]
