"""Promise: the quick reader of chat replies and the general one never differ: what it reads is the same event, and what it
leaves is judged there. Any field, type, order, repeated key and broken byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipworthy.model.chat import Event
from shipworthy.model.dialects.openai_chat import decode_event, decode_reply
from shipworthy.model.dialects.openai_chat_reply import read_event, read_reply
from shipworthy.model.dialects.openai_chat_usual import usual_event, usual_reply
from shipworthy.model.errors import ProviderFailure

NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "7",
        "20",
        "27",
        "-1",
        "1.0",
        "1e2",
        "true",
        "1024",
        "1025",
        "100000000",
        "100000001",
        "9" * 30,
        "0.5",
        "-0",
    ]
)
TEXTS = st.sampled_from(
    [json.dumps(said) for said in ("", "stop", "hello", "assistant", "ünï 🚢", 'a "quote" \\ and\nline', "\x7f")]
    + ['"\\u0061"', '"\\ud83d\\ude00"', '"\\ud800"', '"raw ü"', '"\\u0000"']
)
ANY = TEXTS | NUMBERS | st.sampled_from(["null", "false", "[]", "{}", '["x"]', '{"x":"y"}', "[null]", "[[]]", "NaN"])


def objects(usual: dict[str, st.SearchStrategy[str]], other: tuple[str, ...]) -> st.SearchStrategy[str]:
    """JSON objects: mostly the usual fields in any order, some twice, some with another value, some not known."""
    pair = st.one_of([st.tuples(st.just(key), value) for key, value in usual.items()])
    odd = st.tuples(st.sampled_from([*usual, *other]), ANY)
    said = st.lists(pair, max_size=7, unique_by=lambda it: it[0])
    more: st.SearchStrategy[list[tuple[str, str]]] = st.lists(odd | pair, max_size=2) | st.just([])

    @st.composite
    def one(draw: st.DrawFn) -> str:
        return written(draw(st.permutations(draw(said) + draw(more))))

    return one()


def written(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{key}":{value}' for key, value in pairs) + "}"


NULL = st.just("null")
SAID = objects(
    {
        "role": TEXTS, "content": TEXTS | NULL, "refusal": NULL, "reasoning_content": NULL | TEXTS,
        "reasoning": NULL | TEXTS, "tool_calls": NULL | st.just("[]"),
        "annotations": st.just("[]"), "audio": NULL, "function_call": NULL,
    },
    ("reasoning", "thinking", "cont\\u0065nt", "refusal", "delta"),
)  # fmt: skip
FINISH = NULL | st.just('"stop"') | TEXTS
BESIDE = {"index": NUMBERS | NULL, "finish_reason": FINISH, "logprobs": NULL, "stop_reason": NULL | NUMBERS | TEXTS}
DETAILS = objects(
    {"cached_tokens": NUMBERS, "audio_tokens": NUMBERS, "reasoning_tokens": NUMBERS}, ("text_tokens", "x")
)
USAGE = objects(
    {
        "prompt_tokens": NUMBERS, "completion_tokens": NUMBERS, "total_tokens": NUMBERS, "prompt_tokens_details": DETAILS,
        "completion_tokens_details": DETAILS,
    },
    ("prompt_cache_hit_tokens", "cost"),
)  # fmt: skip
TOP = {"id": TEXTS, "object": TEXTS, "created": NUMBERS, "model": TEXTS, "usage": USAGE | NULL, "error": NULL}


def replies(key: str) -> st.SearchStrategy[str]:
    required = st.tuples(SAID, objects(BESIDE, ("message", "delta", "text"))).map(
        lambda both: f'{{"{key}":{both[0]}{"," if len(both[1]) > 2 else ""}{both[1][1:]}'
    )
    choice = required | objects({**BESIDE, key: SAID}, ("message", "delta", "text"))
    choices = choice.map(lambda one: f"[{one}]") | st.lists(choice, max_size=2).map(lambda all: f"[{','.join(all)}]")
    said = st.tuples(choices, objects(TOP, ("choices", "service_tier", "x_groq", "prompt_logprobs"))).map(
        lambda both: f'{{"choices":{both[0]}{"," if len(both[1]) > 2 else ""}{both[1][1:]}'
    )
    return said | objects({**TOP, "choices": choices}, ("provider",))


@st.composite
def mutated(draw: st.DrawFn, replies: st.SearchStrategy[str]) -> bytes:
    payload = bytearray(draw(replies).encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(payload) - 1)))
        cut = draw(st.integers(0, 2))
        payload[at : at + cut] = draw(
            st.binary(max_size=2) | st.sampled_from([b"\xff", b'"', b"\\", b"{", b"\xc3\xbc"])
        )
    return bytes(payload)


@settings(max_examples=500, deadline=None)
@given(payload=replies("delta").map(str.encode) | mutated(replies("delta")))
def test_an_event_is_the_same_read_quickly(payload: bytes) -> None:
    event = usual_event(payload, "name")
    if event is not None:
        assert event == read_event(payload, "name")


@settings(max_examples=500, deadline=None)
@given(body=replies("message").map(str.encode) | mutated(replies("message")))
def test_an_answer_is_the_same_read_quickly(body: bytes) -> None:
    event = usual_reply(body)
    if event is not None:
        assert event == read_reply(body)


def chunk(choice: str, rest: str = "") -> bytes:
    head = '"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"m"'
    return f'{{{head},"choices":[{choice}]{rest}}}'.encode()


SPENT = '{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21'
CACHED = (
    ',"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":3}}'
)
OPENAI = ',"service_tier":"default","system_fingerprint":null,"usage":null,"obfuscation":"x1"'


@pytest.mark.parametrize(
    "payload",
    [
        chunk('{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}', OPENAI),
        chunk('{"index":0,"delta":{"content":"Hi \\n ü"},"logprobs":null,"finish_reason":null}', OPENAI),
        chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}', OPENAI),
        chunk("", f',"usage":{SPENT}}}'),
        chunk("", f',"usage":{SPENT}{CACHED}'),
        chunk('{"finish_reason":null,"index":0,"delta":{"content":"a"}}'),
        chunk('{"index":0,"delta":{"content":"","reasoning_content":"a","reasoning":"a"}}'),
        chunk('{"index":0,"delta":{"content":"c","reasoning_content":"a","reasoning":"b"}}'),
        chunk('{"index":3,"delta":{"content":"a","reasoning_content":null},"stop_reason":null,"token_ids":null}'),
    ],
)  # fmt: skip
def test_the_usual_event_is_read_quickly(payload: bytes) -> None:
    event = usual_event(payload, "")
    assert isinstance(event, Event)
    assert event == read_event(payload, "") == decode_event(payload)


@pytest.mark.parametrize("figures", ["", f',"usage":{SPENT}}}', f',"usage":{SPENT}{CACHED}'])
def test_the_usual_answer_is_read_quickly(figures: str) -> None:
    message = '{"role":"assistant","content":"Hi","refusal":null,"annotations":[]}'
    body = chunk(f'{{"index":0,"message":{message},"logprobs":null,"finish_reason":"stop"}}', figures)
    event = usual_reply(body)
    assert isinstance(event, Event)
    assert event == read_reply(body) == decode_reply(body)


@pytest.mark.parametrize(
    "choice",
    [
        '{"delta":{"content":"a","leak":"b"}}',
        '{"delta":{"tool_calls":[{"function":{"name":"f"}}]}}',
        '{"delta":{}},{"delta":{}}',
        '{"delta":{"content":"a"},"leak":"b"}',
        '{"delta":{"content":["a"]}}',
        '{"delta":{"refusal":"a"}}',
    ],
)
def test_what_could_say_more_is_left_to_the_general_reader(choice: str) -> None:
    assert usual_event(chunk(choice), "") is None
    assert decode_event(chunk(choice)) == read_event(chunk(choice), "")


@pytest.mark.parametrize(
    "rest", [',"error":{"message":"no"}', ',"usage":{"prompt_tokens":-1}', ',"usage":{"prompt_tokens":1e2}']
)
def test_lies_are_judged_by_the_general_reader(rest: str) -> None:
    assert usual_event(chunk("", rest), "") is None


def test_neither_reader_takes_half_an_event() -> None:
    whole = chunk('{"index":0,"delta":{"content":"Hi"},"finish_reason":null}')
    for end in range(len(whole)):
        with pytest.raises(ProviderFailure):
            decode_event(whole[:end])
