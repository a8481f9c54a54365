"""The connections to one provider: those that are kept for the next request, the last used first, and those in use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shipworthy.adapters.providers.wire import Wire
from shipworthy.model.errors import FailureKind, ProviderFailure

KEPT_MAX = 1_024  # how many are in use is the call stage's to bound, by concurrent_max
DIALS_MAX = 2  # for a request whose new connection is closed before a byte was sent

Dial = Callable[[Callable[[], Wire]], Awaitable[Wire]]


class Pool:
    """Belongs to the loop of its first connection. ``keepalive_s`` 0 keeps none."""

    def __init__(self, dial: Dial, keepalive_s: float) -> None:
        self._dial = dial
        self._keepalive_s = keepalive_s
        self._kept: dict[Wire, None] = {}  # in the order in which they were freed
        self._wires: set[Wire] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = (
            None  # asking for it each time is a system call before Python 3.12
        )

    def kept(self) -> Wire | None:
        """A connection that is certainly open at this moment, for a request that is sent before anything is awaited."""
        kept, loop = self._kept, self._loop
        while kept:
            assert loop is not None
            wire, _ = kept.popitem()
            if not self._expired(wire, loop.time()) and not wire.stale():
                return wire
            wire.abort()
        return None

    async def fresh(self) -> Wire:
        """A new connection, open at this moment. Raises ProviderFailure CONNECT, with ``sent`` False."""
        loop = self._loop = asyncio.get_running_loop()
        for _ in range(DIALS_MAX):
            if self._closed:
                break
            wire = await self._dial(lambda: Wire(loop, self))
            if not self._closed and not wire.gone():
                self._wires.add(wire)
                return wire
            wire.abort()
        words = "no more connections are made" if self._closed else "the connection was closed before the request"
        raise ProviderFailure(FailureKind.CONNECT, words, sent=False)

    def freed(self, wire: Wire) -> None:
        if self._closed or self._keepalive_s <= 0 or len(self._kept) >= KEPT_MAX:
            wire.abort()
            return
        loop = self._loop
        assert loop is not None
        wire.idle_since_s = loop.time()
        self._kept[wire] = None
        if self._sweep is None:
            self._sweep = loop.call_later(self._keepalive_s, self._swept)

    def lost(self, wire: Wire) -> None:
        self._kept.pop(wire, None)
        self._wires.discard(wire)

    def close(self) -> None:
        """Ends every connection; what runs on them fails."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for wire in tuple(self._wires):
            wire.abort()

    def _expired(self, wire: Wire, now_s: float) -> bool:
        return now_s - wire.idle_since_s >= self._keepalive_s

    def _swept(self) -> None:
        """Ends the connections that have been idle for too long, and looks again once the next may be."""
        loop = self._loop
        assert loop is not None
        now_s = loop.time()
        self._sweep = None
        for wire in [wire for wire in self._kept if self._expired(wire, now_s)]:
            wire.abort()
        if self._kept:
            self._sweep = loop.call_later(self._keepalive_s, self._swept)
