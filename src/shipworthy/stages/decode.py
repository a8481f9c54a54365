"""decode: the sender is known, so now its body is read, once, and becomes a Request.

A large body must not hold up everybody's streams. What the quick reader understands takes it a millisecond or two a
megabyte: they are read here, one in each turn of the loop. A thread would take as long from the loop, for both need the
interpreter, and the waiting of each for the other on top. What only the general reader understands takes it much longer, and
goes to threads: their pool is bounded, and who waits for it is bounded by the requests that the server admits at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from shipworthy.model.chat import Dialect, Request
from shipworthy.model.dialects import anthropic_messages, openai_chat, openai_embeddings, openai_responses
from shipworthy.model.dialects.openai_chat_usual_request import usual_request
from shipworthy.model.dialects.strict import LIMITS, Limits
from shipworthy.model.op import Op
from shipworthy.ports import Arrival

LARGE_BYTES = 128 * 1024
"""Below this a body is decoded in about a millisecond, by any reader."""
QUICK_BYTES_MAX = 2 * 1024 * 1024
"""Above this even the quick reader would be noticed."""
THREADS_MAX = 2

Decode: TypeAlias = Callable[[Op, Arrival], Awaitable[Request]]

DIALECTS: dict[Dialect, Callable[[bytes, Limits], Request]] = {
    Dialect.OPENAI_CHAT: openai_chat.decode_request,
    Dialect.OPENAI_RESPONSES: openai_responses.decode_request,
    Dialect.OPENAI_EMBEDDINGS: openai_embeddings.decode_request,
    Dialect.ANTHROPIC_MESSAGES: anthropic_messages.decode_request,
}

QUICK: dict[Dialect, tuple[Callable[[bytes, Limits], Request | None], Callable[[bytes, Limits], Request]]] = {
    Dialect.OPENAI_CHAT: (usual_request, openai_chat.read_request),
}
"""Two readers of a dialect: one that is quick and says None to what it does not understand, and one for all else."""


def make_decode(limits: Limits = LIMITS) -> Decode:
    """The stage with its limits. It raises Refusal decode.*, and nothing else, whatever the client sent."""
    pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="decode")
    turn = asyncio.Lock()

    async def decode(op: Op, arrival: Arrival) -> Request:
        body = await arrival.read_body()
        read = DIALECTS[arrival.dialect]
        if len(body) < LARGE_BYTES:
            return read(body, limits)
        if arrival.dialect in QUICK and len(body) <= QUICK_BYTES_MAX:
            quick, read = QUICK[arrival.dialect]
            async with turn:
                found = quick(body, limits)
                await asyncio.sleep(0)  # everybody else's turn, before the next large one
            if found is not None:
                return found
        return await asyncio.get_running_loop().run_in_executor(pool, read, body, limits)

    return decode
