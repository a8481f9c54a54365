"""A request's body, read once and only after its sender is known, within a size and a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from shipworthy.http.headers import Head
from shipworthy.model.errors import Refusal

BODY_BYTES_MAX = 32 * 1024 * 1024
BODY_SECONDS_MAX = 60.0

Receive = Callable[[], Awaitable[Any]]


class Body:
    """Reads the body on demand; afterwards ``gone`` waits for the client to leave."""

    __slots__ = ("_head", "_receive", "complete")

    def __init__(self, head: Head, receive: Receive) -> None:
        self._head = head
        self._receive = receive
        self.complete = asyncio.Event()

    async def read(self) -> bytes:
        """The whole body. Raises Refusal decode.*."""
        self._head.check_json()
        announced = self._head.text(b"content-length")
        if announced.isdigit() and int(announced) > BODY_BYTES_MAX:
            raise Refusal("decode.too_large", limit_bytes=BODY_BYTES_MAX)
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                body = await self._collect()
        except TimeoutError:
            raise Refusal("decode.timeout", limit_s=BODY_SECONDS_MAX) from None
        self.complete.set()
        return body

    async def _collect(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refusal("decode.client_left")
            piece = message.get("body", b"")
            size += len(piece)
            if size > BODY_BYTES_MAX:
                raise Refusal("decode.too_large", limit_bytes=BODY_BYTES_MAX)
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def gone(self) -> None:
        """Returns when the client has left; waits for ever if it stays."""
        await self.complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
