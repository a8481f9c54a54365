"""The data plane's server: one listening socket, its connections, one look a moment at who is late."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from email.utils import formatdate

from shipworthy.http.wire.connection import App, Connection, Shared, Tell
from shipworthy.http.wire.encrypted import Encryption, Refusing

LOOK_S = 0.25
"""How often connections are looked at: what is due is noticed at most so much later."""
BACKLOG = 2_048


class Server:
    """Serves ``app`` on ``listener`` from ``start`` until ``end``; over TLS where there is a context for it."""

    def __init__(
        self,
        app: App,
        tell: Tell,
        listener: socket.socket,
        connections_max: int,
        tls: ssl.SSLContext | None = None,
        refusing: Refusing = lambda peer, reason: None,
    ) -> None:
        self._shared = Shared(app, tell, connections_max)
        self._listener = listener
        self._encryption = Encryption(self._connection, tls, refusing, self._room) if tls is not None else None
        self._listening: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        return len(self._shared.connections)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._look()
        make = self._connection if self._encryption is None else self._encryption.connection
        self._listening = await loop.create_server(make, sock=self._listener, backlog=BACKLOG)

    def renew(self, tls: ssl.SSLContext) -> None:
        """Shows another certificate to those who come from now on. Only where TLS was spoken from the start."""
        assert self._encryption is not None
        self._encryption.renew(tls)

    def part(self) -> None:
        """From now on every answer is the last of its connection. New ones are still taken."""
        self._shared.keeping = False

    async def end(self, flush_s: float) -> None:
        """Stops listening and closes what is idle; the last bytes of answers have ``flush_s`` to reach their readers."""
        self.part()
        if self._listening is not None:
            self._listening.close()
        if self._encryption is not None:
            self._encryption.close()
        connections, emptied = self._shared.connections, self._shared.emptied
        emptied.clear()
        for connection in tuple(connections):
            connection.finish()
        if connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(emptied.wait(), flush_s)
        for connection in tuple(connections):
            connection.abort()
        if self._looking is not None:
            self._looking.cancel()

    def _connection(self) -> Connection:
        return Connection(self._shared, asyncio.get_running_loop())

    def _room(self, more: int) -> bool:
        return len(self._shared.connections) + more < self._shared.connections_max

    def _look(self) -> None:
        """Gives up who is late, and sets the date."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._shared.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        for connection in tuple(self._shared.connections):
            if connection.due <= now or connection.unread_due <= now:
                connection.overdue(now)
        self._looking = loop.call_later(LOOK_S, self._look)
