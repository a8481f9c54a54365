"""The talk with a proxy until it has opened the way to a provider: one CONNECT, one answer, and not a byte after it."""

from __future__ import annotations

import asyncio
from typing import cast

from shipworthy.adapters.providers.framing import Garbled, Incoming
from shipworthy.adapters.providers.wire import with_reset
from shipworthy.model.errors import FailureKind, ProviderFailure


class Tunnel(asyncio.Protocol):
    """A connection to a proxy, on which ``through`` is asked for once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._transport: asyncio.Transport | None = None
        self._incoming = Incoming()
        self._refusal = ""
        self._changed: asyncio.Future[None] = loop.create_future()

    async def through(self, authority: str, authorization: str) -> asyncio.Transport:
        """The connection, once it leads to ``authority``. Raises ProviderFailure CONNECT."""
        assert self._transport is not None
        credentials = f"proxy-authorization: {authorization}\r\n" if authorization else ""
        self._transport.write(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{credentials}\r\n".encode("ascii"))
        await self._changed
        if self._refusal:
            raise ProviderFailure(FailureKind.CONNECT, self._refusal, sent=False)
        return self._transport

    def abort(self) -> None:
        """Ends the connection at once, whatever runs on it."""
        self._changed.cancel()
        if self._transport is not None:
            with_reset(self._transport)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if self._changed.done():  # before TLS has begun nobody speaks: it could be taken for the provider's
            self.abort()
            return
        try:
            self._incoming.feed(data)
        except Garbled:
            self._decided("the proxy's answer is not HTTP, or too large")
            return
        if not self._incoming.arrived:
            return
        status = self._incoming.status
        if status // 100 != 2:
            self._decided(f"the proxy refused (status {status})")
        elif self._incoming.buffered:
            self._decided("the proxy said more than that the way is open")
        else:
            self._decided("")

    def eof_received(self) -> None:
        self._decided("the proxy closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._decided("the proxy closed the connection")

    def _decided(self, refusal: str) -> None:
        if not self._changed.done():
            self._refusal = refusal
            self._changed.set_result(None)
