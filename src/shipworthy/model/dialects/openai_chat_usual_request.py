"""OpenAI chat completions, the request that nearly all are: messages of plain text, and settings that say nothing.

Why a second reader beside ``openai_chat``? The general one shows every object's pairs to Python, because a key that stands
twice must be refused. Here the shape is known, so counting is enough: every key and every text value is a string, a string
has two quotes, and no quote stands elsewhere once the escaped ones are taken off. A key that stands twice, at any depth,
makes more quotes than what was read accounts for. Whatever does not fit goes to the general reader, which alone refuses. A
property test holds both to the same requests.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from shipworthy.model.chat import Dialect, Origin, Part, PartKind, Request
from shipworthy.model.dialects.gather import a_printable_model
from shipworthy.model.dialects.listed import Listed
from shipworthy.model.dialects.strict import FIELDS, Limits
from shipworthy.model.route import Ability

ORIGINS = {
    "system": Origin.SYSTEM,
    "developer": Origin.SYSTEM,
    "user": Origin.USER,
    "assistant": Origin.MODEL,
    "tool": Origin.TOOL,
    "function": Origin.TOOL,
}
PLAIN = frozenset({"system", "developer", "user", "assistant"})
"""Roles whose content is text and no tool's result."""
DEPTH = 3
"""Of the body, its messages, one of them."""
ENTRIES_MAX = 32
"""Values outside the messages: there are no more fields."""
ENTRIES_EACH = 4
"""Of a message: itself, its role, its content."""

Positive = Annotated[int, Meta(ge=1, le=2**53)] | None
Small = Annotated[float, Meta(gt=-1e6, lt=1e6)] | None
"""A setting; a number from NUMBER_SHOWN_MIN on may be a card's, and is text."""


class Message(Listed, frozen=True, gc=False):
    role: str
    content: str


class StreamOptions(Listed, frozen=True, gc=False):
    include_usage: bool


class Body(Listed, frozen=True, gc=False):
    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive = None
    max_completion_tokens: Positive = None
    n: Positive = None
    user: str | None = None
    seed: Annotated[int, Meta(ge=-(2**53), le=2**53)] | None = None
    temperature: Small = None
    top_p: Small = None
    presence_penalty: Small = None
    frequency_penalty: Small = None
    top_k: Small = None
    min_p: Small = None
    repetition_penalty: Small = None
    logprobs: bool | None = None
    parallel_tool_calls: bool | None = None


BODY = msgspec.json.Decoder(Body)


def usual_request(body: bytes, limits: Limits) -> Request | None:
    """The request that ``body`` is, None when only the general reader can say."""
    if (
        len(body) > limits.values_max and body.count(b"{") > limits.messages_max
    ):  # they would cost more than their bytes
        return None
    try:
        said = BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    fields = FIELDS.decode(body)
    strings = len(fields) + 1 + 4 * len(said.messages) + (said.user is not None) + (said.stream_options is not None)
    if 2 * strings != quotes(body) or not within(said, limits):
        return None
    parts: list[Part] = []
    for turn, message in enumerate(said.messages):
        if message.role not in PLAIN:
            return None
        if message.content:
            path = ("messages", turn, "content")
            parts.append(Part(PartKind.TEXT, ORIGINS[message.role], turn, path, message.content))
    asked, stream = said.max_completion_tokens, said.stream is True
    return Request(
        dialect=Dialect.OPENAI_CHAT,
        operation=Ability.CHAT,
        model=said.model,
        body=body,
        fields=fields,
        parts=tuple(parts),
        stream=stream,
        include_usage=stream and said.stream_options is not None and said.stream_options.include_usage,
        output_tokens_asked=asked or said.max_tokens,
        output_tokens_field="max_completion_tokens" if asked else "max_tokens" if said.max_tokens else "",
        choices=said.n or 1,
        end_user=said.user or "",
    )


def quotes(body: bytes) -> int:
    """How many quotes begin or end a string of this JSON: all but those behind the backslash of an escape."""
    if b"\\" not in body:
        return body.count(b'"')
    bare = body.replace(b"\\\\", b"")  # backslashes that are text; one that is left begins an escape
    return bare.count(b'"') - bare.count(b'\\"')


def within(said: Body, limits: Limits) -> bool:
    """Whether no limit is near, and no two caps contradict each other."""
    return (
        ENTRIES_MAX + ENTRIES_EACH * len(said.messages) <= limits.values_max
        and limits.depth_max >= DEPTH
        and len(said.messages) <= min(limits.messages_max, limits.parts_max)
        and a_printable_model(said.model, limits)
        and (said.user is None or len(said.user) <= limits.end_user_chars_max)
        and (said.max_tokens is None or said.max_completion_tokens is None)
    )
