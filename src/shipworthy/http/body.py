"""A request's body, read once and only after its sender is known, within a size and a time."""

from __future__ import annotations

import asyncio

from shipworthy.http.headers import Head
from shipworthy.http.wire.request import Request
from shipworthy.model.errors import Refusal

BODY_BYTES_MAX = 32 * 1024 * 1024
BODY_SECONDS_MAX = 60.0
BODIES_BYTES_MAX = 512 * 1024 * 1024
"""Of memory, for the bodies of all requests together that one worker has in hand."""
IN_MEMORY = 4
"""How often a body lies in memory while its request is in hand: as it came, as text, as it is sent, and for a moment in
pieces. benchmarks/large.py measures it."""
REQUEST_BYTES = 256 * 1024
"""What a request counts for at least, however short its body: whoever sends slowly takes room too."""
TENANT_SHARE = 0.75
"""Of all room, for one of several tenants: what one of them sends must not keep the others out."""


class Room:
    """What the bodies in hand may take of memory together, and those of one tenant."""

    __slots__ = ("bytes_max", "of", "taken")

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.taken = 0
        self.of: dict[str, int] = {}

    def take(self, tenant: str, size: int, *, alone: bool) -> None:
        """Raises Refusal decode.no_room. ``alone``: there is no other tenant that room must be left for."""
        share = self.bytes_max if alone else int(self.bytes_max * TENANT_SHARE)
        of_tenant = self.of.get(tenant, 0) + size
        if self.taken + size > self.bytes_max or of_tenant > share:
            raise Refusal("decode.no_room", limit_bytes=self.bytes_max, retry_after_s=1)
        self.taken += size
        self.of[tenant] = of_tenant

    def give_back(self, tenant: str, size: int) -> None:
        self.taken -= size
        left = self.of[tenant] - size
        if left:
            self.of[tenant] = left
        else:
            del self.of[tenant]


class Body:
    """Reads the body on demand. ``drop`` gives its room back."""

    __slots__ = ("_alone", "_head", "_pieces", "_request", "_room", "_size", "_taken", "_tenant", "whole")

    def __init__(self, head: Head, request: Request, room: Room) -> None:
        self._head = head
        self._request = request
        self._room = room
        self._pieces: list[bytes] = []
        self._size = 0
        self._taken = 0  # of the room
        self._tenant = ""
        self._alone = True
        self.whole = False  # all of it was read

    async def read(self, tenant: str, *, alone: bool) -> bytes:
        """The whole body, now that it is known whose it is. Raises Refusal decode.*."""
        self._tenant, self._alone = tenant, alone
        self._occupy(REQUEST_BYTES)
        self._head.check_json()
        announced = self._head.text(b"content-length")
        if announced.isdigit() and int(announced) > BODY_BYTES_MAX:
            raise Refusal("decode.too_large", limit_bytes=BODY_BYTES_MAX)
        self._take()
        if not self._request.complete:
            await self._take_the_rest()
        self.whole = True
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _take_the_rest(self) -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                while not self._request.complete:
                    await self._request.more()
                    self._take()
        except TimeoutError:
            raise Refusal("decode.timeout", limit_s=BODY_SECONDS_MAX) from None

    def _take(self) -> None:
        """Takes what has come so far."""
        if self._request.gone:
            raise Refusal("decode.client_left")
        piece = self._request.take()
        self._size += len(piece)
        if self._size > BODY_BYTES_MAX:
            raise Refusal("decode.too_large", limit_bytes=BODY_BYTES_MAX)
        self._occupy(self._size * IN_MEMORY)
        self._pieces.append(piece)

    def _occupy(self, size: int) -> None:
        if size > self._taken:
            self._room.take(self._tenant, size - self._taken, alone=self._alone)
            self._taken = size

    def drop(self) -> None:
        """The request has ended: nobody needs its body any more."""
        if self._taken:
            self._room.give_back(self._tenant, self._taken)
            self._taken = 0
