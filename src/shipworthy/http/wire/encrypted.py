"""TLS beneath a connection: to the socket a protocol, to the protocol above it a transport.

Why not the loop's own? It keeps two thirds of a megabyte for each connection that has once carried a large prompt, cannot
say how much of an answer is still unsent, cannot close one half, closes a connection whose handshake failed without telling
its client why, and lets nobody count handshakes. Here all connections of a bind read into one buffer, and what holds for
plain HTTP (back-pressure, half-closing, leaving) holds for TLS in the same way.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from shipworthy.http.wire import bounds
from shipworthy.http.wire.peer import address_of

Refusing = Callable[[str, str], None]
"""Hears of every peer with which no TLS came about: the peer, the reason."""

READ_BYTES = 32_768
"""So much is taken from a socket, and given to it, at a time; a connection keeps about that much for good, both ways."""
FAREWELL_S = 1.0
"""How long a client that was refused has to read why."""
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


class Encryption:
    """TLS of one bind. ``make`` makes the protocol above; ``room`` says whether there may be one more beside so many."""

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        refusing: Refusing,
        room: Callable[[int], bool],
    ) -> None:
        self.make = make
        self.context = context
        self.refusing = refusing
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.shaking: dict[Encrypted, None] = {}  # those in their handshake, in the order in which they came
        self._room = room

    def connection(self) -> Encrypted:
        """The protocol of one more socket."""
        return Encrypted(self)

    def renew(self, context: ssl.SSLContext) -> None:
        """Shows another certificate to those who come from now on."""
        self.context = context

    def close(self) -> None:
        """Leaves who is in a handshake; who has ended it is somebody else's."""
        for shaking in tuple(self.shaking):
            shaking.abort()

    def admit(self, comer: Encrypted) -> bool:
        """Whether there is room for its handshake; if there are too many, at the cost of the oldest."""
        room = self._room(len(self.shaking))
        if not room and not self.shaking:
            return False
        if not room or len(self.shaking) >= bounds.HANDSHAKES_MAX:
            oldest = next(iter(self.shaking))
            del self.shaking[oldest]
            oldest.abort()
        self.shaking[comer] = None
        return True


class Encrypted(asyncio.Transport, asyncio.BufferedProtocol):
    """One connection. The protocol above hears of it once TLS is agreed on."""

    __slots__ = ("_above", "_due", "_ended", "_incoming", "_outgoing", "_peer", "_shared", "_socket", "_tls")

    _socket: asyncio.Transport

    def __init__(self, shared: Encryption) -> None:
        self._shared = shared
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = shared.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._above: asyncio.Protocol | None = None  # until TLS is agreed on
        self._ended = False  # nothing more is read or said
        self._due: asyncio.TimerHandle | None = None

    # -- to the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._peer = address_of(transport.get_extra_info("peername"))
        if self._shared.admit(self):
            self._wait(bounds.HANDSHAKE_SECONDS_MAX, self._too_slow)
        else:
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._ended:
            return
        self._incoming.write(self._shared.buffer[:nbytes])
        if self._above is None:
            self._shake()
        else:
            self._read(self._above)

    def eof_received(self) -> bool:
        if self._above is not None and not self._ended:
            self._above.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._shaken()
        above, self._above = self._above, None
        del (
            self._tls,
            self._incoming,
            self._outgoing,
        )  # the protocol above lives until the collector comes, these do not
        if above is not None:
            above.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    # -- the handshake

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as fault:
            self._refuse(reason_of(fault))
        else:
            self._flush()
            self._shaken()
            self._above = above = self._shared.make()
            above.connection_made(self)
            self._read(above)  # the first request may have come with the last of the handshake

    def _too_slow(self) -> None:
        self._refuse("no TLS was agreed on in time")

    def _refuse(self, reason: str) -> None:
        """Tells both sides why; closed at once, what the client still sends would destroy the alert on its way."""
        self._shaken()
        self._ended = True
        self._flush()
        self._half_close()
        self._wait(FAREWELL_S, self._socket.abort)
        self._shared.refusing(self._peer, reason)

    def _shaken(self) -> None:
        """The handshake has come to its end."""
        self._shared.shaking.pop(self, None)
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._due = asyncio.get_running_loop().call_later(seconds, then)

    # -- what comes

    def _read(self, above: asyncio.Protocol) -> None:
        tls, incoming, pieces, left = self._tls, self._incoming, [], False
        try:
            while not self._ended and (incoming.pending or tls.pending()):
                piece = tls.read(READ_BYTES)
                if not piece:
                    left = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            left = True
        except ssl.SSLError:  # no record of this connection: whatever it is, nothing behind it can be read
            self._flush()
            self.abort()
            return
        self._flush()
        if pieces:
            above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if left and not self._ended:  # it said goodbye, as a plain client closes its half
            above.eof_received()
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._socket.is_closing():
            self._socket.write(self._outgoing.read())

    # -- to the protocol above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            return
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest[:READ_BYTES]) :]
            if not rest or self._outgoing.pending >= READ_BYTES:
                self._socket.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Says goodbye; what comes is read away until the client has left."""
        if not self._ended:
            self._goodbye()
            self._half_close()

    def close(self) -> None:
        if not self._ended:
            self._goodbye()
        self._socket.close()

    def abort(self) -> None:
        self._ended = True
        self._socket.abort()

    def _half_close(self) -> None:
        if not self._socket.is_closing():
            self._socket.write_eof()

    def _goodbye(self) -> None:
        self._ended = True
        with suppress(ssl.SSLError):  # it waits for the client's: we do not
            self._tls.unwrap()
        self._flush()

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def is_reading(self) -> bool:
        return self._socket.is_reading()

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._above or self

    def get_extra_info(self, name: str, default: object = None) -> object:
        match name:
            case "peercert":
                return self._tls.getpeercert()
            case "ssl_object":
                return self._tls
            case "sslcontext":
                return self._tls.context
            case _:
                return self._socket.get_extra_info(name, default)


def reason_of(fault: ssl.SSLError) -> str:
    """Why no TLS came about, in words."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"the client's certificate is not trusted: {fault.verify_message}"
    said = fault.reason or ""
    return REASONS.get(said) or f"no TLS could be agreed on: {said.replace('_', ' ').lower() or fault}"
