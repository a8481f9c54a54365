"""One suite for every kind of provider: what goes up, what comes back, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest
from msgspec import Raw

from shipworthy.adapters.providers import llama_cpp
from shipworthy.kit.calls import Bench, a_chat, a_provider, an_op, decoded, fitted, said, until
from shipworthy.kit.scripted_config import Line, Pace, Saying, ScriptedConfig
from shipworthy.kit.scripted_log import Ended
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.model.chat import DeltaKind
from shipworthy.model.errors import ProviderFailure
from shipworthy.model.money import Usage

KINDS = ["openai", "openai-compatible", "llama-cpp", "scripted"]
OVER_HTTP = KINDS[:3]
KEY = "corp-key-0123456789"


Open = Callable[..., AbstractAsyncContextManager[Bench]]
Play = Callable[[Awaitable[None]], None]

# ------------------------------------------------------------------------------------------- what goes up

ODD = (
    b'{ "temperature":0.70, "model":"gpt-4o",'
    b'"messages": [ {"role":"user", "content":"caf\\u00e9 \\ud83d\\ude00 \xc3\xa9"} ] ,'
    b'"metadata":{"a" : 1.0e0 , "b":[1 ,2]},"logit_bias":{"50256":-100},"x_unknown" : {"keep":  "me"} , "stream":%s}'
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_the_provider_gets_the_clients_bytes_but_for_what_is_replaced(
    kind: str, stream: bytes, bench: Open, play: Play
) -> None:
    """Same dialect is spliced: every untouched value arrives byte for byte, in the client's order."""

    async def played() -> None:
        async with bench(kind) as b:
            request = decoded(ODD % stream)
            events = await b.upstream.open(an_op(), b.model, request, fitted(request, replace={"metadata": b'{"c":3}'}))
            async for _ in events:
                pass
            await events.aclose()
            got = msgspec.json.decode(b.log[0].body, type=dict[str, Raw])
            mine = msgspec.json.decode(request.body, type=dict[str, Raw])
            cap = "max_completion_tokens" if kind == "openai" else "max_tokens"
            ours = {"model", "metadata", cap, "stream_options"}
            assert {key: bytes(got[key]) for key in mine.keys() - ours} == {
                key: bytes(mine[key]) for key in mine.keys() - ours
            }
            assert [key for key in got if key in mine] == list(mine)
            assert bytes(got["model"]) == b'"upstream-1"'
            assert bytes(got["metadata"]) == b'{"c":3}'
            assert bytes(got[cap]) == b"1000"
            asked = bytes(got["stream_options"]) if "stream_options" in got else b""
            assert asked == (b'{"include_usage":true}' if stream == b"true" else b"")

    play(played())


@pytest.mark.parametrize("kind", OVER_HTTP)
def test_only_our_own_headers_go_up(kind: str, bench: Open, play: Play) -> None:
    """What a client sends in headers is never forwarded; traceparent and the id are the operation's."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def played() -> None:
        async with bench(kind) as b:
            request, op = a_chat(), an_op(trace)
            events = await b.upstream.open(op, b.model, request, fitted(request))
            await anext(events)
            await events.aclose()
            headers = dict(b.log[0].headers)
            assert headers.pop("authorization", "") == ("" if kind == "openai-compatible" else f"Bearer {KEY}")
            assert headers.pop("traceparent") == trace
            assert headers.pop("x-client-request-id") == str(op.id)
            assert headers.pop("user-agent").startswith("shipworthy/")
            assert headers.pop("connection", "") == ("close" if kind == "llama-cpp" else "")
            assert headers.keys() == {"host", "accept", "accept-encoding", "content-type", "content-length"}
            assert (headers["content-type"], headers["accept-encoding"]) == ("application/json", "identity")

    play(played())


# ------------------------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_answer_is_one_event(kind: str, bench: Open, play: Play) -> None:
    async def played() -> None:
        async with bench(kind, ScriptedConfig(answers=(Saying(contains="open", say="We open at nine."),))) as b:
            events = await b.all(a_chat("When do you open?"))
            assert len(events) == 1
            assert events[0].done
            assert said(events) == "We open at nine."
            assert events[0].usage == Usage(input=4, output=4)
            assert b.log.billed == (4, 4)
            assert b.log[0].ended is Ended.SAID

    play(played())


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_the_same_answer_in_pieces(kind: str, bench: Open, play: Play) -> None:
    """Deltas, finish reasons, usage and the end arrive in order; choices are told apart."""

    async def played() -> None:
        async with bench(kind, ScriptedConfig(answers=(Saying(contains="open", say="We open at nine."),))) as b:
            events = await b.all(a_chat("When do you open?", stream=True, n=3))
            assert [event.done for event in events] == [False] * (len(events) - 1) + [True]
            assert [said(events, choice) for choice in range(3)] == [
                "We open at nine.",
                "We open at nine. (choice 1)",
                "We open at nine. (choice 2)",
            ]
            assert sorted(finish for event in events for finish in event.finish) == [(n, "stop") for n in range(3)]
            assert [event.usage for event in events if event.usage] == [Usage(input=4, output=16)]
            assert events[-2].usage_only
            assert events[-1].raw == b"[DONE]"
            assert b.log.billed == (4, 16)

    play(played())


TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}},
    }
    for name in ("find_order", "find_parcel")
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [True, False])
def test_parallel_tool_calls_come_through(kind: str, stream: bool, bench: Open, play: Play) -> None:
    async def played() -> None:
        async with bench(kind) as b:
            events = await b.all(a_chat("find_order then find_parcel", stream=stream, tools=TOOLS, tool_choice="auto"))
            deltas = [d for event in events for d in event.deltas if d.kind is DeltaKind.TOOL_CALL]
            assert {(d.call, d.name) for d in deltas if d.name} == {(0, "find_order"), (1, "find_parcel")}
            for call in (0, 1):
                assert msgspec.json.decode("".join(d.text for d in deltas if d.call == call)) == {"q": "scripted"}
            assert [reason for event in events for _, reason in event.finish] == ["tool_calls"]

    play(played())


@pytest.mark.parametrize("kind", KINDS)
def test_length_stop_and_json_answers(kind: str, bench: Open, play: Play) -> None:
    async def played() -> None:
        async with bench(kind, ScriptedConfig(answers=(Saying(contains="count", say="one two three four"),))) as b:
            cut = await b.all(a_chat("count", max_tokens=2))
            assert (said(cut), cut[0].finish) == ("one two", ((0, "length"),))
            stopped = await b.all(a_chat("count", stop=[" three"]))
            assert (said(stopped), stopped[0].finish) == ("one two", ((0, "stop"),))
            shaped = await b.all(a_chat("an object", response_format={"type": "json_object"}))
            assert msgspec.json.decode(said(shaped)) == {"scripted": True, "heard": "an object"}

    play(played())


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_pass_as_bytes(kind: str, bench: Open, play: Play) -> None:
    async def played() -> None:
        async with bench(kind) as b:
            plain = await b.all(decoded({"model": "embed", "input": ["one text", "another"], "dimensions": 4}))
            packed = await b.all(
                decoded({"model": "embed", "input": "one text", "dimensions": 4, "encoding_format": "base64"})
            )
            first = msgspec.json.decode(plain[0].raw)["data"][0]["embedding"]
            same = struct.unpack("<4f", base64.b64decode(msgspec.json.decode(packed[0].raw)["data"][0]["embedding"]))
            assert same == pytest.approx(first)
            assert plain[0].usage == Usage(input=3)
            assert plain[0].done

    play(played())


# ------------------------------------------------------------------------------------------- nothing is left behind

SLOW = ScriptedConfig(pace=Pace(first_token_ms=20, inter_token_ms=50))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["hang", "hang-after-head", "hang-midway"])
def test_a_cancel_while_waiting_reaches_the_provider_at_once(
    kind: str, stream: bool, fault: str, bench: Open, play: Play
) -> None:
    """Before the head, after it, and midway: within 100 ms the provider knows that nobody listens."""

    async def played() -> None:
        async with bench(kind, ScriptedConfig(script=(Line.model_validate({"fault": fault}),))) as b:
            waiting = asyncio.create_task(b.all(a_chat(stream=stream)))
            await until(lambda: len(b.log) == 1)
            await asyncio.sleep(0.03)
            assert b.log[0].ended is Ended.OPEN
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: b.log[0].ended is Ended.CLIENT_LEFT, within_s=0.1)

    play(played())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_closing_the_events_reaches_the_provider_at_once(kind: str, taken: int, bench: Open, play: Play) -> None:
    """Also when not one event was read."""

    async def played() -> None:
        async with bench(kind, SLOW) as b:
            request = a_chat(stream=True)
            events = await b.upstream.open(an_op(), b.model, request, fitted(request))
            for _ in range(taken):
                await anext(events)
            await events.aclose()
            await until(lambda: b.log[0].ended is Ended.CLIENT_LEFT, within_s=0.1)
            assert b.log[0].billed_output < 9
            await events.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(events)

    play(played())


@pytest.mark.parametrize("kind", KINDS)
def test_sixty_four_streams_at_once(kind: str, bench: Open, play: Play) -> None:
    """Each gets its own answer, and connections are given back."""

    async def played() -> None:
        async with bench(kind, ScriptedConfig(pace=Pace(first_token_ms=5, inter_token_ms=1))) as b:
            for _ in range(2):
                heard = await asyncio.gather(*(b.all(a_chat(f"number {n}", stream=True)) for n in range(64)))
                assert [said(events) for events in heard] == [
                    f"This is a scripted answer. You said: number {n}" for n in range(64)
                ]
            assert {entry.ended for entry in b.log} == {Ended.SAID}
            assert sum(entry.billed_output for entry in b.log) == 2 * 64 * 9
            if b.server is not None:
                assert b.server.connections_made <= (128 if kind == "llama-cpp" else 64)

    play(played())


@pytest.mark.parametrize("kind", ["openai", "openai-compatible"])
def test_a_connection_is_used_again(kind: str, bench: Open, play: Play) -> None:
    """After a stream, a whole answer and an error alike."""

    async def played() -> None:
        faults = ScriptedConfig(script=(Line(fault="429", after=4), Line(fault="no-done", after=6)))
        async with bench(kind, faults) as b:
            assert b.server is not None
            for number in range(10):
                try:
                    await b.all(a_chat(stream=number % 2 == 0))
                except ProviderFailure as failure:
                    assert number == 4, failure  # noqa: PT017
            assert b.log.received == 10
            assert b.server.connections_made == 1

    play(played())


def test_the_local_model_gets_its_stop_and_no_images(play: Play) -> None:
    """A base model would go on talking to itself; what it cannot see is refused before it is sent."""

    async def played() -> None:
        async with ScriptedServer() as server:
            provider = a_provider("llama-cpp", llama_cpp.LlamaCppConfig())
            upstream = llama_cpp.build(provider, base_url=server.base_url, api_key=KEY, default_stop=("\n",))
            b = Bench(upstream, server.log, server)
            await b.all(a_chat())
            await b.all(a_chat(stop="END"))
            await b.all(a_chat(stop=["END", "\n"]))
            stops = [msgspec.json.decode(entry.body)["stop"] for entry in b.log]
            assert stops == [["\n"], ["END", "\n"], ["END", "\n"]]
            picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]
            with pytest.raises(ProviderFailure, match="reads no images") as refused:
                await b.all(decoded({"model": "support", "messages": [{"role": "user", "content": picture}]}))
            assert (refused.value.kind, refused.value.sent) == ("rejected", False)
            assert b.log.received == 3
            await upstream.close()

    play(played())
