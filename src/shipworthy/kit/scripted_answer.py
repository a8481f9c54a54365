"""What the scripted provider says: a pure function of the request's bytes, in the shapes of OpenAI's API.

A piece (one word with the space after it) counts as one token, going in and coming out, so that a test can count along.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

CREATED_UNIX_S = 1_767_225_600  # answers are the same at any time of day
TEXT_CHARS_QUOTED_MAX = 400
CHOICES_MAX = 128
DIMENSIONS_MAX = 4_096
IMAGE_TOKENS = 85
SAMPLES: dict[str, object] = {
    "string": "scripted", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}
}  # fmt: skip
_PIECES = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")


class _Part(Struct):
    type: str = "text"
    text: str = ""


class _Message(Struct):
    role: str = "user"
    content: str | list[_Part] | None = None


class _Function(Struct, frozen=True):
    name: str = ""
    parameters: dict[str, object] = {}


class _Tool(Struct, frozen=True):
    type: str = "function"
    function: _Function = _Function()


class _StreamOptions(Struct):
    include_usage: bool | None = False


class _Format(Struct):
    type: str = "text"


class Asked(Struct):
    """The fields of a chat or embeddings body that the script looks at; all others are only logged."""

    model: str
    messages: list[_Message] = []
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    n: int | None = 1
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Tool | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    logprobs: bool | None = False
    input: Raw = Raw(b'""')
    dimensions: int | None = None
    encoding_format: str | None = None

    @property
    def last_text(self) -> str:
        """What was said last: the text that markers and answers look at."""
        return text_of(self.messages[-1]) if self.messages else ""


class Saying(Struct, frozen=True):
    """When the last message contains ``contains``, the answer is ``say``."""

    contains: str
    say: str


class Call(Struct, frozen=True):
    id: str
    name: str
    pieces: tuple[str, ...]  # of the arguments


class Choice(Struct, frozen=True):
    pieces: tuple[str, ...]
    calls: tuple[Call, ...]
    finish: str


class Answer(Struct, frozen=True):
    """A chat answer, before it is written as one body or as a stream."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    input_tokens: int
    logprobs: bool
    include_usage: bool

    @property
    def output_tokens(self) -> int:
        return sum(
            len(choice.pieces) + sum(len(call.pieces) for call in choice.calls) for choice in self.choices
        )  # fmt: skip

    @property
    def usage(self) -> dict[str, int]:
        went_in, came_out = self.input_tokens, self.output_tokens
        return {"prompt_tokens": went_in, "completion_tokens": came_out, "total_tokens": went_in + came_out}


_DECODER = msgspec.json.Decoder(Asked)


def read(body: bytes) -> Asked:
    """Raises msgspec.DecodeError on anything that the real API would answer with 400 too."""
    return _DECODER.decode(body)


def chat(asked: Asked, body: bytes, sayings: Sequence[Saying]) -> Answer:
    """The answer to a chat request."""
    digest = hashlib.sha256(body).hexdigest()
    limit = asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
    calls = _calls(asked, digest)
    texts = () if calls else (_text(asked, sayings),)
    choices = tuple(
        _choice("".join(texts) + (f" (choice {index})" if index and texts else ""), calls, limit, asked.stop)
        for index in range(min(max(asked.n or 1, 1), CHOICES_MAX))
    )
    return Answer(
        id=f"chatcmpl-{digest[:24]}",
        model=asked.model,
        choices=choices,
        input_tokens=max(1, sum(_input_tokens(message) for message in asked.messages)),
        logprobs=bool(asked.logprobs),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
    )


def text_of(message: _Message) -> str:
    content = message.content
    return content if isinstance(content, str) else " ".join(part.text for part in content or () if part.text)


def pieces_of(text: str) -> tuple[str, ...]:
    """``text`` cut into words; together they are ``text`` again."""
    return tuple(_PIECES.findall(text))


def _input_tokens(message: _Message) -> int:
    images = sum(part.type == "image_url" for part in message.content) if isinstance(message.content, list) else 0
    return len(pieces_of(text_of(message))) + images * IMAGE_TOKENS


def _text(asked: Asked, sayings: Sequence[Saying]) -> str:
    said = asked.last_text
    for saying in sayings:
        if saying.contains in said:
            return saying.say
    if asked.response_format is not None and asked.response_format.type != "text":
        return msgspec.json.encode({"scripted": True, "heard": said[:TEXT_CHARS_QUOTED_MAX]}).decode()
    return f"This is a scripted answer. You said: {said[:TEXT_CHARS_QUOTED_MAX]}"


def _choice(text: str, calls: tuple[Call, ...], limit: int | None, stop: str | list[str] | None) -> Choice:
    ends = [text.index(mark) for mark in ([stop] if isinstance(stop, str) else stop or ()) if mark and mark in text]
    pieces = pieces_of(text[: min(ends)] if ends else text)
    if limit is not None and limit < len(pieces):
        return Choice(pieces[:limit], (), "length")
    return Choice(pieces, calls, "tool_calls" if calls else "stop")


def _calls(asked: Asked, digest: str) -> tuple[Call, ...]:
    """A tool is called when it must be, or when the last message is the user's and names it."""
    tools = [tool.function for tool in asked.tools or () if tool.type == "function"]
    chosen = asked.tool_choice
    if isinstance(chosen, _Tool):
        wanted = [tool for tool in tools if tool.name == chosen.function.name]
    elif chosen == "none" or not asked.messages or asked.messages[-1].role != "user":
        wanted = []
    else:
        wanted = [tool for tool in tools if tool.name and tool.name in asked.last_text]
        wanted = wanted or (tools[:1] if chosen == "required" else [])
    if asked.parallel_tool_calls is False:
        wanted = wanted[:1]
    return tuple(
        Call(f"call_{digest[:12]}{index:02d}", tool.name, pieces_of(_arguments(tool)))
        for index, tool in enumerate(wanted)
    )


def _arguments(tool: _Function) -> str:
    properties = tool.parameters.get("properties")
    if not isinstance(properties, dict):
        return "{}"
    found = {
        name: SAMPLES.get(str(shape.get("type"))) if isinstance(shape, dict) else None
        for name, shape in properties.items()
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=0).decode().replace("\n", " ")


# ------------------------------------------------------------------------------------------- as bytes


def whole(answer: Answer, usage: object) -> bytes:
    """The answer as one body. ``usage`` is what it claims to have used, None = it says nothing."""
    choices = [
        {"index": index, "message": _message(choice), "finish_reason": choice.finish}
        | ({"logprobs": {"content": [_logprob(piece) for piece in choice.pieces]}} if answer.logprobs else {})
        for index, choice in enumerate(answer.choices)
    ]
    head: dict[str, object] = {
        "id": answer.id,
        "object": "chat.completion",
        "created": CREATED_UNIX_S,
        "model": answer.model,
    }
    return msgspec.json.encode(head | {"choices": choices} | ({} if usage is None else {"usage": usage}))


def _message(choice: Choice) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": "".join(choice.pieces) if choice.pieces else None}
    if choice.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(call.pieces)}}
            for call in choice.calls
        ]
    return message


def _logprob(piece: str) -> dict[str, object]:
    return {"token": piece, "logprob": -0.5, "bytes": list(piece.encode()), "top_logprobs": []}


def streamed(answer: Answer, usage: object) -> Iterator[tuple[bytes, int]]:
    """The answer as the payloads of a stream, each with the tokens that it carries; choices take turns."""
    head = {"id": answer.id, "object": "chat.completion.chunk", "created": CREATED_UNIX_S, "model": answer.model}
    asked = {"usage": None} if answer.include_usage else {}

    def chunk(index: int, delta: dict[str, object], finish: str | None = None, piece: str = "") -> bytes:
        choice: dict[str, object] = {"index": index, "delta": delta, "finish_reason": finish}
        if answer.logprobs and piece:
            choice["logprobs"] = {"content": [_logprob(piece)]}
        return msgspec.json.encode(head | {"choices": [choice]} | asked)

    for index in range(len(answer.choices)):
        yield chunk(index, {"role": "assistant", "content": ""}), 0
    for turn in range(max(len(choice.pieces) for choice in answer.choices)):
        for index, choice in enumerate(answer.choices):
            if turn < len(choice.pieces):
                yield chunk(index, {"content": choice.pieces[turn]}, piece=choice.pieces[turn]), 1
    for index, choice in enumerate(answer.choices):
        for number, call in enumerate(choice.calls):
            for delta, tokens in _call_deltas(number, call):
                yield chunk(index, {"tool_calls": [delta]}), tokens
        yield chunk(index, {}, choice.finish), 0
    if answer.include_usage and usage is not None:
        yield msgspec.json.encode(head | {"choices": [], "usage": usage}), 0
    yield b"[DONE]", 0


def _call_deltas(number: int, call: Call) -> Iterator[tuple[dict[str, object], int]]:
    function: dict[str, object] = {"name": call.name, "arguments": ""}
    yield {"index": number, "id": call.id, "type": "function", "function": function}, 0
    for piece in call.pieces:
        yield {"index": number, "function": {"arguments": piece}}, 1


# ------------------------------------------------------------------------------------------- embeddings


class Vectors(Struct, frozen=True):
    """An embeddings answer before it is written."""

    model: str
    entries: tuple[list[float] | str, ...]
    input_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.input_tokens, "total_tokens": self.input_tokens}


def embed(asked: Asked, dimensions: int) -> Vectors:
    """Vectors of length 1 that depend on the texts alone. Raises msgspec.DecodeError for an input that is none."""
    texts = _inputs(asked.input)
    size = min(max(asked.dimensions or dimensions, 1), DIMENSIONS_MAX)
    entries = tuple(_vector(text, size, asked.encoding_format) for text in texts)
    return Vectors(asked.model, entries, max(1, sum(len(pieces_of(text)) for text in texts)))


def embedded(vectors: Vectors, usage: object) -> bytes:
    """The embeddings answer as one body."""
    entries = [
        {"object": "embedding", "index": index, "embedding": entry} for index, entry in enumerate(vectors.entries)
    ]
    body: dict[str, object] = {"object": "list", "data": entries, "model": vectors.model}
    return msgspec.json.encode(body | ({} if usage is None else {"usage": usage}))


def _inputs(raw: Raw) -> list[str]:
    value = msgspec.json.decode(raw)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(entry, int) for entry in value):
        return [" ".join(map(str, value))]
    if isinstance(value, list):
        return [entry if isinstance(entry, str) else " ".join(map(str, entry)) for entry in value]
    raise msgspec.ValidationError("input must be a text, a list of texts, or tokens")


def _vector(text: str, size: int, encoding: str | None) -> list[float] | str:
    noise = hashlib.shake_256(text.encode()).digest(size * 2)
    values = [value / 32_768 for value in struct.unpack(f"<{size}h", noise)]
    length = sum(value * value for value in values) ** 0.5 or 1.0
    unit = [value / length for value in values]
    return base64.b64encode(struct.pack(f"<{size}f", *unit)).decode() if encoding == "base64" else unit
