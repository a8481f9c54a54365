"""A request's body, read once and only after its sender is known, within a size and a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from shipworthy.http.headers import Head
from shipworthy.model.errors import Refusal

BODY_BYTES_MAX = 32 * 1024 * 1024
BODY_SECONDS_MAX = 60.0
BODIES_BYTES_MAX = 512 * 1024 * 1024
"""Of all requests together that one worker has in hand."""

Receive = Callable[[], Awaitable[Any]]


class Room:
    """What the bodies in hand may take of memory together."""

    __slots__ = ("bytes_max", "taken")

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.taken = 0


class Body:
    """Reads the body on demand; afterwards ``gone`` waits for the client to leave. ``drop`` gives its room back."""

    __slots__ = ("_head", "_receive", "_room", "_taken", "complete")

    def __init__(self, head: Head, receive: Receive, room: Room) -> None:
        self._head = head
        self._receive = receive
        self._room = room
        self._taken = 0
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
            self._take(len(piece))
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take(self, size: int) -> None:
        if self._room.taken + size > self._room.bytes_max:
            raise Refusal("decode.no_room", limit_bytes=self._room.bytes_max, retry_after_s=1)
        self._room.taken += size
        self._taken += size

    def drop(self) -> None:
        """The request has ended: nobody needs its body any more."""
        self._room.taken -= self._taken
        self._taken = 0

    async def gone(self) -> None:
        """Returns when the client has left; waits for ever if it stays."""
        await self.complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
