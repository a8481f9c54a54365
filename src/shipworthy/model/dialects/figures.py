"""What a provider says that it used, believed only as far as it can be true."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from shipworthy.model.dialects.strict import Json, Object
from shipworthy.model.money import Usage

TOKENS_MAX = 100_000_000
"""No single answer uses more; a figure above it is a lie or a bug, and would empty a budget."""


Figures: TypeAlias = Callable[[Object], Usage]
"""How one dialect's usage object is read. Raises Unbelievable."""


class Unbelievable(Exception):
    """A figure that is negative, no integer, absurd, or greater than what it is a part of."""


def openai_usage(value: Json) -> tuple[Usage | None, bool]:
    """Usage of chat completions and embeddings; the flag says that figures came which cannot be true."""
    return believed(value, openai_figures)


def responses_usage(value: Json) -> tuple[Usage | None, bool]:
    """Usage of the Responses dialect."""
    return believed(value, responses_figures)


def anthropic_usage(value: Json) -> tuple[Usage | None, bool]:
    """Usage of the Messages dialect; partial on streams, where input and output come apart."""
    return believed(value, anthropic_figures)


def believed(value: Json, figures: Figures) -> tuple[Usage | None, bool]:
    if value is None:
        return None, False
    if not isinstance(value, dict):
        return None, True
    try:
        usage = figures(value)
        check(usage)
    except Unbelievable:
        return None, True
    return usage, False


def openai_figures(said: Object) -> Usage:
    inputs, outputs = details(said, "prompt_tokens_details"), details(said, "completion_tokens_details")
    return openai_sums(
        prompt=figure(said, "prompt_tokens", demanded=True),
        output=figure(said, "completion_tokens"),
        total=said.get("total_tokens"),
        read=figure(inputs, "cached_tokens") or figure(said, "prompt_cache_hit_tokens"),
        written=figure(inputs, "cache_write_tokens"),
        reasoning=figure(outputs, "reasoning_tokens"),
        audio_in=figure(inputs, "audio_tokens"),
        audio_out=figure(outputs, "audio_tokens"),
    )


def openai_sums(
    *, prompt: int, output: int, total: Json, read: int, written: int, reasoning: int, audio_in: int, audio_out: int
) -> Usage:
    if reasoning and total == prompt + output + reasoning:  # some servers count reasoning beside the output, not in it
        output += reasoning
    if audio_in > prompt or audio_out > output:
        raise Unbelievable("audio_tokens")
    return Usage(
        input=prompt,
        output=output,
        cache_read=read,
        cache_write=written,
        reasoning=reasoning,
        input_audio=max(0, min(audio_in, prompt - read - written)),  # cached sound is counted as cached, once
        output_audio=max(0, min(audio_out, output - reasoning)),
    )


def responses_figures(said: Object) -> Usage:
    inputs, outputs = details(said, "input_tokens_details"), details(said, "output_tokens_details")
    return Usage(
        input=figure(said, "input_tokens", demanded=True),
        output=figure(said, "output_tokens", demanded=True),
        cache_read=figure(inputs, "cached_tokens"),
        cache_write=figure(inputs, "cache_write_tokens"),
        reasoning=figure(outputs, "reasoning_tokens"),
    )


def anthropic_figures(said: Object) -> Usage:
    """``input_tokens`` leaves out what was read from or written to the cache; ours counts every input token."""
    read, written = figure(said, "cache_read_input_tokens"), figure(said, "cache_creation_input_tokens")
    return Usage(
        input=figure(said, "input_tokens") + read + written,
        output=figure(said, "output_tokens"),
        cache_read=read,
        cache_write=written,
        reasoning=figure(details(said, "output_tokens_details"), "thinking_tokens"),
    )


def details(said: Object, key: str) -> Object:
    value = said.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unbelievable(key)
    return value


def figure(said: Object, key: str, *, demanded: bool = False) -> int:
    value = said.get(key)
    if value is None and not demanded:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        raise Unbelievable(key)
    return value


def check(usage: Usage) -> None:
    """A part is never greater than its whole: money would be charged for tokens that do not exist."""
    if usage.cache_read + usage.cache_write + usage.input_audio > usage.input:
        raise Unbelievable("input")
    if usage.reasoning + usage.output_audio > usage.output:
        raise Unbelievable("output")
    if usage.input > TOKENS_MAX or usage.output > TOKENS_MAX:
        raise Unbelievable("total")
