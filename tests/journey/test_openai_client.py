"""The official OpenAI client, unchanged but for base URL and key: what works at OpenAI works here, nothing is lost."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx2 as httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from tests.journey.deployment import Deployment

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40).decode()
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
TIME: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}},
}


@dataclass
class Sdk:
    """The official client, and what went over its wire."""

    client: openai.OpenAI
    sent: list[httpx.Request] = field(default_factory=list)
    got: list[httpx.Response] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        return str(self.got[-1].headers["x-shipworthy-request-id"])


Clients = Callable[[str], Sdk]


@pytest.fixture
def sdk_for(server: Deployment) -> Iterator[Clients]:
    """Clients with a credential each, closed at the end."""
    with ExitStack() as open_clients:

        def make(credential: str) -> Sdk:
            sent: list[httpx.Request] = []
            got: list[httpx.Response] = []
            hooks = {"request": [sent.append], "response": [got.append]}
            http = open_clients.enter_context(httpx.Client(trust_env=False, timeout=20, event_hooks=hooks))
            return Sdk(openai.OpenAI(api_key=credential, base_url=f"{server.base}/v1", http_client=http), sent, got)

        yield make


@pytest.fixture
def sdk(server: Deployment, sdk_for: Clients) -> Sdk:
    return sdk_for(server.token())


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def upstream_body(server: Deployment) -> bytes:
    return server.providers.first.log[-1].body


def test_an_answer_and_its_price(server: Deployment, sdk: Sdk) -> None:
    answer = sdk.client.chat.completions.create(model="chat", messages=says("good morning"))
    assert answer.choices[0].message.content == "This is a scripted answer. You said: good morning"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 9)
    headers, row = sdk.got[-1].headers, server.row(sdk.request_id)
    assert headers["x-shipworthy-use-case"] == "chat"
    assert headers["x-shipworthy-model"] == "one"
    assert headers["x-shipworthy-output-tokens-max"] == "500"
    assert int(headers["x-ratelimit-limit-requests"]) == 100_000
    assert 0 < int(headers["x-ratelimit-remaining-requests"]) < 100_000
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert row["charged_nano"] == 2 * 1_000 + 9 * 4_000
    assert headers["x-shipworthy-cost-usd"] == f"0.{row['charged_nano']:09d}"
    assert row["outcome"] == "served"


def test_an_alias_keeps_a_prototype_working(server: Deployment, sdk: Sdk) -> None:
    answer = sdk.client.chat.completions.create(model="gpt-4o", messages=says("hi"))
    assert answer.model == "up-one"
    row = server.row(sdk.request_id)
    assert (row["alias"], row["use_case"]) == ("gpt-4o", "chat")


def test_a_stream_without_usage_has_none(server: Deployment, sdk: Sdk) -> None:
    """Usage is asked of the upstream for settlement, and kept from a client that did not ask."""
    stream = sdk.client.chat.completions.create(model="chat", messages=says("one two three"), stream=True)
    chunks = list(stream)
    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks)
        == "This is a scripted answer. You said: one two three"
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert all("usage" not in chunk.model_fields_set for chunk in chunks), "not even as null"
    assert json.loads(upstream_body(server))["stream_options"] == {"include_usage": True}
    headers = sdk.got[-1].headers
    assert headers["content-type"].startswith("text/event-stream")
    assert "x-shipworthy-cost-usd" not in headers
    row = server.row(sdk.request_id)
    assert row["stream"] and row["usage"]["output"] == 10
    assert row["usage"]["basis"] == "reported"


def test_a_stream_with_usage_has_it_once_and_last(server: Deployment, sdk: Sdk) -> None:
    stream = sdk.client.chat.completions.create(
        model="chat", messages=says("hi"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == server.row(sdk.request_id)["usage"]["output"]


def test_the_stream_helper_of_the_client(sdk: Sdk) -> None:
    with sdk.client.chat.completions.stream(model="chat", messages=says("hi")) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "This is a scripted answer. You said: hi"


def test_parallel_tool_calls_there_and_back(server: Deployment, sdk: Sdk) -> None:
    messages = says("please get_weather and get_time")
    first = sdk.client.chat.completions.create(
        model="chat", messages=messages, tools=[WEATHER, TIME], parallel_tool_calls=True
    )
    message = first.choices[0].message
    assert message.tool_calls is not None
    calls = [call for call in message.tool_calls if call.type == "function"]
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert json.loads(calls[0].function.arguments) == {"city": "scripted", "days": 1}
    assert first.choices[0].finish_reason == "tool_calls"
    messages.append({"role": "assistant", "tool_calls": [call.to_dict() for call in calls]})
    messages += [{"role": "tool", "tool_call_id": call.id, "content": '{"sky":"clear \\u2600"}'} for call in calls]
    second = sdk.client.chat.completions.create(model="chat", messages=messages, tools=[WEATHER, TIME])
    assert second.choices[0].finish_reason == "stop"
    assert [m["role"] for m in json.loads(upstream_body(server))["messages"]] == ["user", "assistant", "tool", "tool"]


def test_tool_calls_as_they_stream(sdk: Sdk) -> None:
    stream = sdk.client.chat.completions.create(
        model="chat", messages=says("get_weather, get_time"), tools=[WEATHER, TIME], stream=True
    )
    arguments = {0: "", 1: ""}
    names: dict[int, str] = {}
    for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or ():
            assert call.function is not None
            names[call.index] = call.function.name or names[call.index]
            arguments[call.index] += call.function.arguments or ""
    assert names == {0: "get_weather", 1: "get_time"}
    assert [json.loads(text) for text in arguments.values()] == [{"city": "scripted", "days": 1}, {"zone": "scripted"}]


def test_response_format_passes(server: Deployment, sdk: Sdk) -> None:
    schema = {"name": "reply", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    answer = sdk.client.chat.completions.create(
        model="chat",
        messages=says("as json"),
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert json.loads(answer.choices[0].message.content or "") == {"scripted": True, "heard": "as json"}
    assert json.loads(upstream_body(server))["response_format"] == {"type": "json_schema", "json_schema": schema}


@pytest.mark.parametrize("url", ["https://pictures.example/a%20b.png?x=1&y=ü", PIXEL])
def test_images_pass_to_the_byte(server: Deployment, sdk: Sdk, url: str) -> None:
    """Same dialect in and out: the client's own bytes, but for the model's name."""
    sdk.client.chat.completions.create(
        model="chat",
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}],
            }
        ],
        max_tokens=50,
    )
    went, came = sdk.sent[-1].content, upstream_body(server)
    assert came == went.replace(b'"model":"chat"', b'"model":"up-one"')
    assert json.loads(came)["messages"][0]["content"][1]["image_url"]["url"] == url


def test_two_choices(server: Deployment, sdk: Sdk) -> None:
    answer = sdk.client.chat.completions.create(model="chat", messages=says("hi"), n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    row = server.row(sdk.request_id)
    assert row["usage"]["output"] == 8 + 10
    assert row["finish"] == ["stop", "stop"]
    both = {0: "", 1: ""}
    for chunk in sdk.client.chat.completions.create(model="chat", messages=says("hi"), n=2, stream=True):
        for choice in chunk.choices:
            both[choice.index] += choice.delta.content or ""
    assert both == {index: answer.choices[index].message.content for index in both}


def test_logprobs_pass(sdk: Sdk) -> None:
    answer = sdk.client.chat.completions.create(model="chat", messages=says("hi"), logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    stream = sdk.client.chat.completions.create(model="chat", messages=says("hi"), logprobs=True, stream=True)
    assert any(chunk.choices[0].logprobs is not None for chunk in stream)


def test_unknown_fields_pass(server: Deployment, sdk: Sdk) -> None:
    extra = {"reasoning_effort": "low", "x_vendor": {"deep": [1, 2.50, "ü"]}, "seed": 7, "metadata": {"run": "1"}}
    sdk.client.chat.completions.create(model="chat", messages=says("hi"), extra_body=extra)
    sent = json.loads(upstream_body(server))
    assert {name: sent[name] for name in extra} == extra
    assert b"2.5" in upstream_body(server)


def test_embeddings(server: Deployment, sdk: Sdk) -> None:
    texts = ["first text", "a second text"]
    floats = sdk.client.embeddings.create(model="embed", input=texts, encoding_format="float")
    packed = sdk.client.embeddings.create(model="embed", input=texts, encoding_format="base64")
    unasked = sdk.client.embeddings.create(model="embed", input=texts)
    raw = packed.data[1].embedding
    if isinstance(raw, str):  # the client leaves it packed when asked for base64
        raw = list(struct.unpack(f"<{len(base64.b64decode(raw)) // 4}f", base64.b64decode(raw)))
    assert raw == pytest.approx(floats.data[1].embedding, abs=1e-6)
    assert unasked.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    row = server.row(sdk.request_id)
    assert (row["operation"], row["usage"]["input"], row["charged_nano"]) == ("embed", 5, 500)
    assert sdk.got[-1].headers["x-shipworthy-cost-usd"] == "0.000000500"


def test_models(sdk: Sdk) -> None:
    assert [model.id for model in sdk.client.models.list()] == ["abroad", "chat", "embed", "gpt-4o", "pair"]
    assert sdk.client.models.retrieve("gpt-4o").owned_by == "shipworthy:chat"
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.client.models.retrieve("gpt-5")
    assert unknown.value.code == "authorize.unknown_use_case"


@pytest.mark.parametrize(
    ("tenant", "groups", "use_case", "kind", "code"),
    [
        ("acme", ("agents",), "nothing", openai.NotFoundError, "authorize.unknown_use_case"),
        ("acme", ("strangers",), "chat", openai.PermissionDeniedError, "authorize.no_role"),
        ("nobody", ("agents",), "chat", openai.PermissionDeniedError, "identify.unknown_tenant"),
        ("acme", ("agents",), "embed", openai.BadRequestError, "authorize.wrong_ability"),
    ],
)
def test_refusals_are_the_clients_own_errors(
    server: Deployment,
    sdk_for: Clients,
    tenant: str,
    groups: tuple[str, ...],
    use_case: str,
    kind: type[openai.APIStatusError],
    code: str,
) -> None:
    sdk = sdk_for(server.token(tenant, groups=groups))
    with pytest.raises(kind) as refused:
        sdk.client.chat.completions.create(model=use_case, messages=says("hi"))
    assert refused.value.code == code
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["hint"]
    assert len(sdk.sent) == 1, "a refusal that waiting cannot change is not tried again"


def test_a_bad_token_is_an_authentication_error(sdk_for: Clients) -> None:
    sdk = sdk_for("not-a-token")
    with pytest.raises(openai.AuthenticationError) as refused:
        sdk.client.chat.completions.create(model="chat", messages=says("hi"))
    assert refused.value.code == "identify.malformed"


def test_a_spent_budget_is_not_tried_again(server: Deployment, sdk_for: Clients) -> None:
    """The client retries every 429, but for ``x-should-retry: false``: money does not come back within seconds."""
    sdk = sdk_for(server.token("poor"))
    upstream = server.providers.first.log.received
    with pytest.raises(openai.RateLimitError) as refused:
        sdk.client.chat.completions.create(model="chat", messages=says("hi"))
    assert refused.value.code == "reserve.budget_exhausted"
    assert refused.value.type == "insufficient_quota"
    headers = refused.value.response.headers
    assert headers["x-should-retry"] == "false"
    assert int(headers["retry-after"]) > 0
    assert len(sdk.sent) == 1
    assert server.providers.first.log.received == upstream, "nothing was asked of a provider"


def test_a_providers_outage_is_tried_again_by_the_client(server: Deployment, sdk_for: Clients) -> None:
    sdk = sdk_for(server.token())
    client = sdk.client.with_options(max_retries=1)
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="chat", messages=says("[[fault:500]]"))
    assert failed.value.code == "call.failed"
    assert len(sdk.sent) == 2


def test_a_stream_that_breaks_raises(server: Deployment, sdk: Sdk) -> None:
    stream = sdk.client.chat.completions.create(
        model="chat", messages=says("[[fault:half-stream]] one two three four"), stream=True
    )
    with pytest.raises(openai.APIError) as cut:
        list(stream)
    assert cut.value.code == "call.cut"
    assert server.row(sdk.request_id)["outcome"] == "cut"
