"""Uvicorn as we run it, for the control plane, with TLS where the manifest wants it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from shipworthy.http.protocol import EdgeProtocol
from shipworthy.http.wire.encrypted import Encryption
from shipworthy.manifest.deployment import Bind
from shipworthy.model.op import Observe
from shipworthy.process.tls import context_of, strangers


class QuietServer(uvicorn.Server):
    """A server that leaves signals alone: the supervisor says when to stop."""

    _encryption: Encryption | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def begin(self, listener: socket.socket, where: Bind, observe: Observe) -> asyncio.Task[None]:
        """Serves on ``listener`` until told to exit."""
        if (tls := context_of(where)) is not None:
            encryption = self._encryption = Encryption(self._connection, tls, strangers(observe), self._room)
            self.config.load()
            self.config.http_protocol_class = lambda **_: encryption.connection()  # type: ignore[assignment]
        return asyncio.create_task(self.serve(sockets=[listener]))

    def renew(self, where: Bind) -> None:
        """Shows another certificate to those who come from now on, if any is shown."""
        if self._encryption is not None and (tls := context_of(where)) is not None:
            self._encryption.renew(tls)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._encryption is not None:
            self._encryption.close()
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        return EdgeProtocol(config=self.config, server_state=self.server_state, app_state={})

    def _room(self, more: int) -> bool:
        return len(self.server_state.connections) + more < EdgeProtocol.connections_max
