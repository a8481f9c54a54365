"""OpenAI chat completions, the replies that nearly all are: at most one choice, which says plain text, thinks or ends.

Why a second reader beside ``openai_chat_reply``? A stream sends an event a token, and the general reader asks each of them
for everything that an event could hold. Here one typed parse answers that: a field that is not listed below, a value of
another type, a list that is not empty is an error to msgspec, and the event goes to the general reader, which alone judges
what is unusual, and refuses. What is listed says nothing beyond its content and reasoning. A property test holds both to
the same events.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from shipworthy.model.chat import Delta, DeltaKind, Event, Path
from shipworthy.model.dialects.figures import TOKENS_MAX, Unbelievable, check, openai_sums
from shipworthy.model.dialects.hear import INDEX_MAX
from shipworthy.model.dialects.listed import Listed
from shipworthy.model.money import Usage

Index = Annotated[int, Meta(ge=0, le=INDEX_MAX)]
Count = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
Time = Annotated[int, Meta(ge=0, le=2**53)]
Nothing = Annotated[list[None], Meta(max_length=0)] | None
DELTA: Path = ("choices", 0, "delta", "content")
TEXT = DeltaKind.TEXT
MESSAGE: Path = ("choices", 0, "message", "content")


class Said(Listed, frozen=True, gc=False):
    role: str | None = None
    content: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Nothing = None
    function_call: None = None
    audio: None = None
    annotations: Nothing = None


class Choice(Listed, frozen=True, gc=False):
    index: Index | None = None
    finish_reason: str | None = None
    logprobs: None = None
    stop_reason: str | None = None
    native_finish_reason: str | None = None
    token_ids: None = None


class Piece(Choice, frozen=True, gc=False, kw_only=True):
    delta: Said


class Whole(Choice, frozen=True, gc=False, kw_only=True):
    message: Said


class InputTokens(Listed, frozen=True, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    audio_tokens: Count | None = None
    text_tokens: Count | None = None
    image_tokens: Count | None = None


class OutputTokens(Listed, frozen=True, gc=False):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None
    text_tokens: Count | None = None
    accepted_prediction_tokens: Count | None = None
    rejected_prediction_tokens: Count | None = None


class Figures(Listed, frozen=True, gc=False, kw_only=True):
    prompt_tokens: Count
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: InputTokens | None = None
    completion_tokens_details: OutputTokens | None = None


class Top(Listed, frozen=True, gc=False):
    id: str | None = None
    object: str | None = None
    created: Time | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    obfuscation: str | None = None
    usage: Figures | None = None
    error: None = None
    prompt_logprobs: None = None
    prompt_token_ids: None = None
    kv_transfer_params: None = None


class StreamEvent(Top, frozen=True, gc=False, kw_only=True):
    choices: Annotated[list[Piece], Meta(max_length=1)]


class Answer(Top, frozen=True, gc=False, kw_only=True):
    choices: Annotated[list[Whole], Meta(min_length=1, max_length=1)]


EVENT = msgspec.json.Decoder(StreamEvent)
ANSWER = msgspec.json.Decoder(Answer)
UNUSUAL = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Unbelievable)


def usual_event(payload: bytes, event_name: str) -> Event | None:
    """The event that ``payload`` is, None when only the general reader can say."""
    try:
        said = EVENT.decode(payload)
        usage = None if said.usage is None else used(said.usage)
    except UNUSUAL:
        return None
    if not said.choices:
        return Event(payload, event_name, (), (), usage, False, usage is not None)
    choice = said.choices[0]
    reason, index, delta = choice.finish_reason, choice.index or 0, choice.delta
    if delta.content and not (delta.reasoning_content or delta.reasoning):
        deltas: tuple[Delta, ...] = (Delta(index, TEXT, delta.content, DELTA),)
    else:
        deltas = deltas_of(delta, index, DELTA)
    return Event(payload, event_name, deltas, ((index, reason),) if reason else (), usage)


def usual_reply(body: bytes) -> Event | None:
    """The answer that ``body`` is, None when only the general reader can say."""
    try:
        said = ANSWER.decode(body)
        usage = None if said.usage is None else used(said.usage)
    except UNUSUAL:
        return None
    (choice,) = said.choices
    reason, index = choice.finish_reason, choice.index or 0
    deltas = deltas_of(choice.message, index, MESSAGE)
    return Event(body, "", deltas, ((index, reason),) if reason else (), usage, done=True)


def deltas_of(said: Said, choice: int, path: Path) -> tuple[Delta, ...]:
    content, thought, again = said.content, said.reasoning_content, said.reasoning
    spoken: tuple[Delta, ...] = (Delta(choice, TEXT, content, path),) if content else ()
    if thought:
        spoken += (Delta(choice, DeltaKind.REASONING, thought, (*path[:-1], "reasoning_content")),)
    if again:  # servers that send both names say the same twice
        at = (*path[:-1], "reasoning")
        spoken += (Delta(choice, DeltaKind.REASONING, again, at, repeat=thought == again),)
    return spoken


def used(said: Figures) -> Usage:
    """Raises Unbelievable, as the general reader's figures do."""
    inputs, outputs = said.prompt_tokens_details, said.completion_tokens_details
    if inputs is None and outputs is None:
        return Usage(said.prompt_tokens, said.completion_tokens or 0)
    inputs, outputs = inputs or InputTokens(), outputs or OutputTokens()
    usage = openai_sums(
        prompt=said.prompt_tokens,
        output=said.completion_tokens or 0,
        total=said.total_tokens,
        read=inputs.cached_tokens or 0,
        written=inputs.cache_write_tokens or 0,
        reasoning=outputs.reasoning_tokens or 0,
        audio_in=inputs.audio_tokens or 0,
        audio_out=outputs.audio_tokens or 0,
    )
    check(usage)
    return usage
