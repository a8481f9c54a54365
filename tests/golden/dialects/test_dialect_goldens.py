"""The event model, held by examples: what each dialect's bodies and streams decode to, or are refused with.

A golden's first line says what its input is: ``request D``, ``reply D``, ``stream D`` (raw server-sent events), or
``upstream D JSON`` (a request, and what is sent to a provider for it). ``request-bytes`` takes
Python escapes for what is no text.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from shipworthy.model.chat import Event, Request
from shipworthy.model.dialects import anthropic_messages, openai_chat, openai_embeddings, openai_responses
from shipworthy.model.dialects.sse import SseSplitter
from shipworthy.model.errors import ProviderFailure, Refusal
from shipworthy.model.places import places
from shipworthy.model.prompt import Fitted

HERE = Path(__file__).parent
DASHES = "\n----\n"
DIALECTS: dict[str, ModuleType] = {
    "openai-chat": openai_chat,
    "openai-responses": openai_responses,
    "openai-embeddings": openai_embeddings,
    "anthropic-messages": anthropic_messages,
}


@pytest.mark.parametrize("path", sorted(HERE.glob("*/*.golden")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden(path: Path, golden_rewrite: bool) -> None:
    """Keeps: what was not scanned cannot be expressed; a provider that lies becomes a typed failure."""
    given, _, _ = path.read_text().partition(DASHES)
    head, _, body = given.partition("\n")
    seen = "\n".join(json.dumps(line, ensure_ascii=False) for line in run(head.split(" ", 2), body)) + "\n"
    if golden_rewrite:
        path.write_text(given + DASHES + seen)
    assert seen == path.read_text().partition(DASHES)[2]


def test_there_are_goldens_for_every_dialect() -> None:
    counts = {name: len(list((HERE / name).glob("*.golden"))) for name in DIALECTS}
    assert all(counts.values()), counts
    assert sum(counts.values()) >= 40


def run(head: list[str], body: str) -> list[Any]:
    dialect = DIALECTS[head[1]]
    try:
        match head[0]:
            case "request":
                return request_lines(dialect.decode_request(body.encode()))
            case "request-bytes":
                return request_lines(dialect.decode_request(body.encode().decode("unicode_escape").encode("latin-1")))
            case "reply":
                return [event_line(dialect.decode_reply(body.encode()))]
            case "stream":
                return stream_lines(dialect, body.encode())
            case "upstream":
                return [dialect.upstream_body(dialect.decode_request(body.encode()), **settings(head[2])).decode()]
            case _:
                raise AssertionError(f"a golden cannot begin with {head[0]}")
    except Refusal as refusal:
        return [{"refused": refusal.code, "message": refusal.message}]
    except ProviderFailure as failure:
        return [{"failed": str(failure.kind), "detail": failure.detail}]


def settings(said: str) -> dict[str, Any]:
    given = json.loads(said)
    replace = {key: value.encode() for key, value in given.pop("replace", {}).items()}
    given["fitted"] = Fitted(output_tokens_max=given.pop("cap", 100), input_tokens=10, replace=replace)
    return given


def request_lines(request: Request) -> list[Any]:
    spans = places(request.body, [part.path for part in request.parts] + [tool.path for tool in request.tools])
    top = {
        name: getattr(request, name)
        for name in (
            "dialect", "operation", "model", "stream", "include_usage", "output_tokens_asked", "output_tokens_field",
            "choices", "end_user", "inputs",
        )
    }  # fmt: skip
    top["fields"] = list(request.fields)
    lines: list[Any] = [top]
    lines += [
        {"tool": tool.name, "hosted": tool.hosted, "path": pointer(tool.path), "span": spans[tool.path]}
        for tool in request.tools
    ]
    for part in request.parts:
        start, end = spans[part.path]
        there = json.loads(request.body[start:end])
        if not part.structured and part.text:
            assert there == part.text, "a part's path leads to its text"
        line = trimmed(part)
        lines.append({"part": line.pop("kind"), **line, "path": pointer(part.path), "span": [start, end]})
    return lines


def stream_lines(dialect: ModuleType, body: bytes) -> list[Any]:
    splitter = SseSplitter()
    lines: list[Any] = []
    for name, data in splitter.feed(body) + splitter.end():
        try:
            lines.append(event_line(dialect.decode_event(data, name)))
        except ProviderFailure as failure:
            lines.append({"failed": str(failure.kind), "detail": failure.detail})
    return lines


def event_line(event: Event) -> dict[str, Any]:
    line = trimmed(event)
    line.pop("raw")
    if event.deltas:
        line["deltas"] = [{**trimmed(delta), "path": pointer(delta.path)} for delta in event.deltas]
    if event.usage is not None:
        line["usage"] = trimmed(event.usage)
    return line


def trimmed(struct: Any) -> dict[str, Any]:
    """A struct's fields, without those that stand at their default."""
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    values = {name: getattr(struct, name) for name in fields}
    return {
        name: value
        for name, value in values.items()
        if fields[name].default is msgspec.NODEFAULT or value != fields[name].default
    }


def pointer(path: tuple[str | int, ...]) -> str:
    return "".join(f"/{step}" for step in path)
