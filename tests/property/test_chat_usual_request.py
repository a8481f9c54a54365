"""Promise: the quick reader of chat requests and the general one never differ: what it reads is the same request, and what
it leaves is judged there. Above all, a key that stands twice is refused, at any depth, however it is written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from shipworthy.model.chat import Request
from shipworthy.model.dialects.openai_chat import decode_request, read_request
from shipworthy.model.dialects.openai_chat_usual_request import usual_request
from shipworthy.model.dialects.strict import LIMITS, Limits
from shipworthy.model.errors import Refusal

TEXTS = (
    st.lists(st.sampled_from(["\\", '"', "n", ","]), max_size=6).map(lambda all: json.dumps("".join(all))) |
    st.text(max_size=12).map(json.dumps)
    | st.sampled_from(["Hello", 'say "hi"', "a\nb", "ünï 🚢", "C:\\dir", '\\"', '"', '",""'])
    .map(lambda text: json.dumps(text, ensure_ascii=False))
    | st.sampled_from(['"\\u0022"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u005c\\""', '"\x01"', '"\x7f"'])
)  # fmt: skip
ROLES = st.sampled_from(
    ['"user"', '"system"', '"assistant"', '"developer"', '"tool"', '"function"', '"other"', '"us\\u0065r"']
)
NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "5",
        "100",
        "0.7",
        "-1",
        "1e3",
        "1E400",
        "-0",
        "1.0",
        "9999999",
        "10000000",
        "4111111111111111",
        "9" * 5000,
    ]
)
FLAGS = st.sampled_from(["true", "false", "null"])
ANY = TEXTS | NUMBERS | FLAGS | st.sampled_from(["[]", "{}", '["x"]', '{"x":"y"}', '{"a":1,"a":2}', "NaN", "Infinity"])


def written(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{key}" :{value}' for key, value in pairs) + "}"


def objects(
    always: dict[str, st.SearchStrategy[str]], often: dict[str, st.SearchStrategy[str]], seldom: list[str]
) -> st.SearchStrategy[str]:
    """JSON objects: what is always there, some of what often is, and sometimes a key again, or a strange one."""
    required = st.tuples(*(st.tuples(st.just(key), value) for key, value in always.items())).map(list)
    pair = st.one_of([st.tuples(st.just(key), value) for key, value in {**always, **often}.items()])
    odd = st.tuples(st.sampled_from([*always, *often, *seldom]), ANY)
    usual = st.lists(pair, max_size=4, unique_by=lambda it: it[0]).map(lambda it: [p for p in it if p[0] not in always])
    more: st.SearchStrategy[list[tuple[str, str]]] = st.just([]) | st.lists(odd | pair, max_size=1)

    @st.composite
    def one(draw: st.DrawFn) -> str:
        return written(draw(st.permutations(draw(required) + draw(usual) + draw(more))))

    return one()


MESSAGE = objects({"role": ROLES, "content": TEXTS}, {}, ["name", "tool_calls", "cont\\u0065nt", "Content"])
BODY = objects(
    {"model": TEXTS, "messages": st.lists(MESSAGE, max_size=3).map(lambda all: f"[{','.join(all)}]")},
    {
        "stream": FLAGS, "max_tokens": NUMBERS, "max_completion_tokens": NUMBERS, "n": NUMBERS, "user": TEXTS,
        "temperature": NUMBERS, "top_p": NUMBERS, "seed": NUMBERS, "logprobs": FLAGS, "parallel_tool_calls": FLAGS,
        "stream_options": st.sampled_from(
            ['{"include_usage":true}', '{"include_usage":false}', '{"include_usage":null}', "{}", "null",
             '{"include_usage":true,"include_usage":false}', '{"include_usage":true,"include_obfuscation":false}']
        ),
    },
    ["tools", "stop", "best_of", "mod\\u0065l", "Model", "store", "metadata", "m\\u0065ssages"],
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(BODY).encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(1, 3))):
        at, cut = draw(st.integers(0, len(body))), draw(st.integers(0, 2))
        body[at : at + cut] = draw(
            st.binary(max_size=2)
            | st.sampled_from([b'"', b"\\", b'\\"', b'"",', b"\xed\xa0\x80", b"\xc0\xaf", b"\x1f"])
        )
    return bytes(body)


def same(one: Request, other: Request) -> bool:
    ours, theirs = asdict(one), asdict(other)
    for each in (ours, theirs):
        each["fields"] = [(key, bytes(value)) for key, value in each["fields"].items()]
    return ours == theirs


@settings(max_examples=600, deadline=None)
@given(body=BODY.map(lambda body: body.encode(errors="surrogatepass")) | mutated())
def test_a_request_is_the_same_read_quickly(body: bytes) -> None:
    request = usual_request(body, LIMITS)
    if request is not None:
        assert same(request, read_request(body, LIMITS))


TALK = (
    '{"role":"system","content":"You help.\\nA \\"lot\\"."},{"role":"user","content":"Hellö"},'
    '{"role":"assistant","content":""}'
)
SETTINGS = (
    '"max_tokens":50,"temperature":0.7,"stream":true,"stream_options":{"include_usage":true},"user":"u","n":2,"seed":-4'
)


@pytest.mark.parametrize("rest", ["", f",{SETTINGS}", ',"max_completion_tokens":5,"top_p":1,"stream":null'])
def test_the_usual_request_is_read_quickly(rest: str) -> None:
    body = f'{{"model":"support","messages":[{TALK}]{rest}}}'.encode()
    request = usual_request(body, LIMITS)
    assert request is not None
    assert same(request, read_request(body, LIMITS))
    assert same(request, decode_request(body))


@pytest.mark.parametrize(
    "body",
    [
        f'{{"model":"a","messages":[{TALK}],"model":"b"}}',
        f'{{"model":"a","messages":[{TALK}],"mod\\u0065l":"b"}}',
        f'{{"model":"a","messages":[{TALK}],"messages":[{TALK}]}}',
        '{"model":"a","messages":[{"role":"user","content":"a","content":"b"}]}',
        '{"model":"a","messages":[{"role":"user","content":"a","content":"b \\""}]}',
        '{"model":"a","messages":[{"role":"user","content":"a\\\\","content":"b"}]}',
        f'{{"model":"a","messages":[{TALK}],"stream":true,"stream":false}}',
        f'{{"model":"a","messages":[{TALK}],"stream_options":{{"include_usage":true,"include_usage":false}}}}',
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused(body: str) -> None:
    assert usual_request(body.encode(), LIMITS) is None
    with pytest.raises(Refusal) as refused:
        decode_request(body.encode())
    assert refused.value.code == "decode.duplicate_key"


@pytest.mark.parametrize(
    "limits",
    [Limits(depth_max=2), Limits(messages_max=2), Limits(parts_max=1), Limits(values_max=10), Limits(model_chars_max=3),
     Limits(end_user_chars_max=0)],
)  # fmt: skip
def test_limits_are_left_to_the_general_reader(limits: Limits) -> None:
    body = f'{{"model":"support","messages":[{TALK}],"user":"u"}}'.encode()
    assert usual_request(body, limits) is None
    with pytest.raises(Refusal):
        decode_request(body, limits)


def test_a_crowd_is_left_to_the_general_reader_before_it_is_read() -> None:
    """A body may be so full of small things that the objects made of them would fill memory."""
    one = '{"role":"user","content":""},'
    body = f'{{"model":"m","messages":[{one * 5_000}{one[:-1]}]}}'.encode()
    assert usual_request(body, Limits(values_max=100_000)) is None
    with pytest.raises(Refusal) as refused:
        decode_request(body, Limits(values_max=10_000))
    assert refused.value.code == "decode.too_many"
