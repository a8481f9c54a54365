"""A listening socket whose connections speak TLS: a protocol hears of one only once that is agreed on.

Why not the loop's own server? Its handshakes cannot be counted, nor can anyone be told why one failed, and it shows the
same certificate for ever. Here the number of handshakes is bounded, each has a peer and an end in words, and ``renew``
changes the certificate for the connections that come.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from shipworthy.http.wire import alert, bounds
from shipworthy.http.wire.peer import address_of

Refusing = Callable[[str, str], None]
"""Hears of every peer with which no TLS came about: the peer, the reason."""

ACCEPTED_EACH = 64
"""Connections that are taken in one turn of the loop; the next turn takes more."""
STARVED_S = 0.5
"""How long no connection is taken after there was no file or memory for one."""


class Encrypted:
    """Takes connections until ``close``. ``room`` says whether there may be one more, those in their handshake aside."""

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        refusing: Refusing,
        room: Callable[[int], bool],
    ) -> None:
        self._make = make
        self._context = context
        self._refusing = refusing
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._starved: asyncio.TimerHandle | None = None
        self._shaking: dict[asyncio.Task[None], socket.socket] = {}  # in the order in which they came

    @property
    def handshakes(self) -> int:
        return len(self._shaking)

    def open(self, listener: socket.socket) -> None:
        """``listener`` does not block; it is closed with this."""
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    def renew(self, context: ssl.SSLContext) -> None:
        """Shows another certificate to those who come from now on."""
        self._context = context

    def close(self) -> None:
        """Takes no more; who is in a handshake is left, who has ended it is not."""
        if self._starved is not None:
            self._starved.cancel()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for shaking in tuple(self._shaking):
            shaking.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_EACH):
            if self._listener is None:
                return
            try:
                client, address = self._listener.accept()
            except BlockingIOError:  # another worker was faster
                return
            except ConnectionError:  # the client left while it waited
                continue
            except OSError:  # no file or memory for it
                self._starve()
                return
            client.setblocking(False)
            self._take(client, address_of(address))

    def _starve(self) -> None:
        assert self._listener is not None
        self._loop.remove_reader(self._listener)
        self._starved = self._loop.call_later(STARVED_S, self.open, self._listener)

    def _take(self, client: socket.socket, peer: str) -> None:
        """Begins a handshake, at the cost of the oldest if there are too many."""
        room = self._room(len(self._shaking))
        if not room and not self._shaking:
            client.close()
            return
        if not room or len(self._shaking) >= bounds.HANDSHAKES_MAX:
            oldest = next(iter(self._shaking))
            del self._shaking[oldest]
            oldest.cancel()
        shaking = self._loop.create_task(self._shake(client, peer))
        self._shaking[shaking] = client
        shaking.add_done_callback(lambda done: self._shaken(done, client))

    def _shaken(self, shaking: asyncio.Task[None], client: socket.socket) -> None:
        self._shaking.pop(shaking, None)
        if shaking.cancelled():
            client.close()  # perhaps before it had begun, and nobody else would

    async def _shake(self, client: socket.socket, peer: str) -> None:
        alert.client.set(client)
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                client,
                ssl=self._context,
                ssl_handshake_timeout=bounds.HANDSHAKE_SECONDS_MAX,
                ssl_shutdown_timeout=bounds.CLOSING_SECONDS_MAX,
            )
        except OSError as fault:  # ssl.SSLError among them
            if reason := reason_of(fault):
                self._refusing(peer, reason)


def reason_of(fault: OSError) -> str:
    """Why no TLS came about, in words; "" for a client that only left, as every look at an open port does."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"the client's certificate is not trusted: {fault.verify_message}"
    if isinstance(fault, ssl.SSLError):
        said = fault.reason or ""
        return REASONS.get(said) or f"no TLS could be agreed on: {said.replace('_', ' ').lower() or fault}"
    if isinstance(fault, ConnectionAbortedError):
        return "no TLS was agreed on in time"
    return ""


REASONS = {
    "HTTP_REQUEST": "plain HTTP came where TLS is spoken",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate",
    "UNSUPPORTED_PROTOCOL": "the client speaks only TLS before 1.2",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the client does not speak this version of TLS",
    "NO_SHARED_CIPHER": "the client knows none of our ciphers",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust our certificate's authority",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says that our certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not take our certificate",
    "WRONG_VERSION_NUMBER": "what came is no TLS",
    "UNEXPECTED_MESSAGE": "what came is no TLS",
}
