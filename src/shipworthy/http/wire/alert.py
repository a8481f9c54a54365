"""Tells a client why no TLS came about.

The loop closes a connection whose handshake failed and keeps what OpenSSL had to say about it to itself: whoever forgot a
certificate would only see that the connection was reset. So it is sent from here, before the loop hears of the failure.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from contextvars import ContextVar
from typing import cast

client: ContextVar[socket.socket] = ContextVar("client")
"""Whose handshake is made in this context."""


class AlertingObject(ssl.SSLObject):
    """One connection's TLS."""

    outgoing: ssl.MemoryBIO
    client: socket.socket | None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.client is not None and (alert := self.outgoing.read()):
                with contextlib.suppress(OSError):  # it has left, or reads nothing
                    self.client.send(alert)
            raise


class AlertingContext(ssl.SSLContext):
    """A context whose connections say why they fail."""

    sslobject_class = AlertingObject

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> AlertingObject:
        wrapped = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        made = cast("AlertingObject", wrapped)
        made.outgoing, made.client = outgoing, client.get(None)
        return made
