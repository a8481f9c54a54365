"""decode: the sender is known, so now its body is read, once, and becomes a Request.

Large bodies are decoded in threads of their own, so that one of them doesn't hold up everybody's streams: the pool is
bounded, and who waits for it is bounded by the requests that the server admits at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from shipworthy.model.chat import Dialect, Request
from shipworthy.model.dialects import anthropic_messages, openai_chat, openai_embeddings, openai_responses
from shipworthy.model.dialects.strict import LIMITS, Limits
from shipworthy.model.op import Op
from shipworthy.ports import Arrival

IN_THREAD_FROM_BYTES = 128 * 1024
"""Below this a body is decoded in about a millisecond; handing it over would cost more than it spares."""

THREADS_MAX = 2

Decode: TypeAlias = Callable[[Op, Arrival], Awaitable[Request]]

DIALECTS: dict[Dialect, Callable[[bytes, Limits], Request]] = {
    Dialect.OPENAI_CHAT: openai_chat.decode_request,
    Dialect.OPENAI_RESPONSES: openai_responses.decode_request,
    Dialect.OPENAI_EMBEDDINGS: openai_embeddings.decode_request,
    Dialect.ANTHROPIC_MESSAGES: anthropic_messages.decode_request,
}


def make_decode(limits: Limits = LIMITS) -> Decode:
    """The stage with its limits. It raises Refusal decode.*, and nothing else, whatever the client sent."""
    pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="decode")

    async def decode(op: Op, arrival: Arrival) -> Request:
        body = await arrival.read_body()
        read = DIALECTS[arrival.dialect]
        if len(body) < IN_THREAD_FROM_BYTES:
            return read(body, limits)
        return await asyncio.get_running_loop().run_in_executor(pool, read, body, limits)

    return decode
