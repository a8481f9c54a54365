"""One request as it comes in: a head that is whole, and a body that comes piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Headers = list[tuple[bytes, bytes]]


class Request:
    """What a client asks. ``when_gone`` is called once if the client leaves before its answer has ended.

    Header names are lower-case. ``wanted`` is told whenever the body is asked for, and how much of it was taken.
    """

    __slots__ = (
        "_waiter", "_wanted", "answered", "complete", "expects", "gone", "headers", "keep", "method", "old", "path", "peer",
        "pieces", "when_gone",
    )  # fmt: skip

    def __init__(self, method: str, path: str, headers: Headers, peer: str, wanted: Callable[[int], None]) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.peer = peer
        self.keep = True  # the client will send more on this connection
        self.old = False  # HTTP/1.0, which knows no chunks
        self.expects = False  # the client waits for 100 before it sends the body
        self.pieces: list[bytes] = []  # of the body: here, and not yet taken
        self.complete = False  # the whole body is here
        self.answered = False  # what still comes of the body is read away
        self.gone = False
        self.when_gone: Callable[[], None] | None = None
        self._wanted = wanted
        self._waiter: asyncio.Future[None] | None = None

    def take(self) -> bytes:
        """What has come of the body since it was last taken."""
        pieces = self.pieces
        if not pieces:
            return b""
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._wanted(len(piece))
        return piece

    async def more(self) -> None:
        """Asks for more of the body; waits until some is here, or it is complete, or the client is gone."""
        if self.pieces or self.complete or self.gone:
            return
        self._wanted(0)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- what the connection says

    def came(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self._wake()

    def ended(self) -> None:
        self.complete = True
        self._wake()

    def left(self) -> None:
        """The client is gone; nobody will read an answer."""
        if not self.gone:
            self.gone = True
            self._wake()
            if self.when_gone is not None:
                self.when_gone()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
