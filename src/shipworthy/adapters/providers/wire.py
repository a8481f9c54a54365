"""One connection to a provider: sends a request, reads its answer, and knows when both are over.

Callbacks of the loop do the work, up to giving a stream's bytes on (``pour``); a coroutine only waits for a change. There is
no task and, on a kept connection, no timer for each request: one alarm stays set, and when it rings it looks whether the
silence has really lasted that long.

Why a reset: a connection that ends before its answer does is ended by a reset, never politely. Closing would first deliver
what is unsent, and some servers take a mere close for a client that still listens; either is billed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Protocol, cast

from shipworthy.adapters.providers.framing import Garbled, Incoming
from shipworthy.adapters.providers.glance import OVER, Glance
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.straight import straight

READ_BUFFER_BYTES = 65_536  # beyond it nothing is read from the socket; what one read of the loop brings may exceed it
WRITE_SLICE_BYTES = 262_144  # a body is handed to the loop, and encrypted, in slices of this size
LINGER_S = 0.25  # how long an answer may take to end after its last event
_LINGER_NOT = struct.pack("ii", 1, 0)

SILENT = "no byte of an answer in time"
IDLE = "no byte for longer than idle_ms_max"
CLOSED_EARLY = "the connection was closed before an answer"
BAD_HEAD = "the answer's head is not HTTP, or too large"
BAD_BODY = "the answer ended half-way or its framing is garbled"
RESET = "the connection was reset"
OURS_NOT_TAKEN = "the provider does not take our certificate"
NOT_TAKEN = frozenset((
    "TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_ACCESS_DENIED",
    "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED", "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
))  # fmt: skip
"""What TLS 1.3 tells us when we believe to be through already; the other side never was, so it has read no request."""
ENDED_HERE = "the connection was closed from this side"


class Home(Protocol):
    """Where a connection goes back to."""

    def freed(self, wire: Wire) -> None:
        """Its answer is whole and it may carry another request."""

    def lost(self, wire: Wire) -> None:
        """It is over. Told once."""


class Wire(asyncio.Protocol):
    """A connection. It carries one request at a time: ``send``, then ``head``, then ``read`` until b"", or ``pour``."""

    __slots__ = (
        "_alarm", "_alarm_s", "_clogged", "_due_s", "_glance", "_held", "_home", "_incoming", "_lingering", "_loop",
        "_pour", "_silence_s", "_transport", "_unsent", "_waiter", "_write", "idle_since_s", "over",
    )  # fmt: skip

    _write: Callable[[bytes], None]

    def __init__(self, loop: asyncio.AbstractEventLoop, home: Home) -> None:
        self.over = False
        self.idle_since_s = 0.0
        self._loop = loop
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._glance: Glance | None = None
        self._incoming: Incoming | None = None  # None: no request is on it
        self._waiter: asyncio.Future[bool] | None = None
        self._pour: Callable[[bytes], bool] | None = None  # takes what comes, while somebody waits
        self._unsent: memoryview | None = None
        self._clogged = False  # the loop takes no more bytes to send
        self._held = False  # nothing is read: too much lies here unread
        self._lingering = False
        self._silence_s = 0.0
        self._due_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0

    # ------------------------------------------------------------------------------------- one request

    def gone(self) -> bool:
        """Whether the other side closed it. Asks the kernel: the loop may not have noticed."""
        return self._shut() or bool(self._glance and self._glance() & OVER)

    def stale(self) -> bool:
        """Whether it may carry no further request: gone, or something was said that nobody asked for."""
        return self._shut() or bool(self._glance and self._glance())

    def send(self, head: bytes, body: bytes, silence_s: float) -> Incoming:
        """Begins a request. Its answer may be silent for ``silence_s`` at a time; a head must be whole by then."""
        transport = self._transport
        assert transport is not None and self._incoming is None and not self.over
        incoming = self._incoming = Incoming()
        self._silence_s = silence_s
        self._ring_at(self._loop.time() + silence_s)
        if len(body) <= WRITE_SLICE_BYTES:
            self._write(head + body)
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._send_more()
        return incoming

    async def head(self, incoming: Incoming) -> None:
        """Returns when the head of the answer is here. Raises ProviderFailure; a cancel ends the connection."""
        try:
            while not incoming.arrived:
                if incoming.failure is not None:
                    raise incoming.failure
                await self._change()
        except BaseException:  # cancelled, mostly: the provider must see it before it has read, and billed, the rest
            self.close(incoming)
            raise

    async def read(self, incoming: Incoming) -> bytes:
        """The next bytes of the answer's body, all that have come; b"" at its end. Raises ProviderFailure."""
        while not (piece := incoming.take()):
            if incoming.whole:
                return b""
            if incoming.failure is not None:
                raise incoming.failure
            await self._change()
        if self._held and self._incoming is incoming:
            self._read_on()
        return piece

    async def pour(self, incoming: Incoming, take: Callable[[bytes], bool]) -> bool:
        """Gives the body's bytes to ``take`` where they arrive, with no task in between, until it wants no more for now.

        Whether there may be more. Raises ProviderFailure.
        """
        while True:
            piece = incoming.take()
            if piece:
                if self._held and self._incoming is incoming:
                    self._read_on()
                if not take(piece):
                    return True
            elif incoming.whole:
                return False
            elif incoming.failure is not None:
                raise incoming.failure
            else:
                self._pour = take
                if await self._change():
                    return True

    def linger(self, incoming: Incoming) -> None:
        """Nothing more is wanted of the answer: it may end within LINGER_S, else the connection does."""
        if self._incoming is incoming:
            self._lingering = True
            self._ring_at(self._loop.time() + LINGER_S)

    def close(self, incoming: Incoming) -> None:
        """Ends the connection if the answer is still on it."""
        if self._incoming is incoming:
            self.abort()

    def abort(self) -> None:
        """Ends the connection at once. What is unsent or unread is dropped, here and in the kernel."""
        if self._incoming is not None:
            self._fail(FailureKind.BROKEN, ENDED_HERE)
        else:
            self._end(reset=self._sending())

    # ------------------------------------------------------------------------------------- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        if self.over:
            self._transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            self._glance = Glance(sock.fileno())
        self._write = straight(self._transport)

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        if incoming is None:  # nobody asked: what it says next could be taken for an answer
            self._end()
            return
        try:
            incoming.feed(data)
        except Garbled:
            self._fail(FailureKind.BROKEN, BAD_BODY if incoming.arrived else BAD_HEAD)
            return
        if incoming.whole:
            self._done(incoming)
        elif incoming.arrived:
            if not self._lingering:
                self._due_s = self._loop.time() + self._silence_s
            if self._pour is not None and self._poured(incoming, self._pour):
                return
            if incoming.buffered > READ_BUFFER_BYTES and not self._held:
                assert self._transport is not None
                self._held = True
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._hung_up(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hung_up(exc)
        self._transport = None

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        if self._incoming is not None and not self._incoming.arrived:
            self._due_s = self._loop.time() + self._silence_s
        self._send_more()

    # ------------------------------------------------------------------------------------- inside

    def _poured(self, incoming: Incoming, take: Callable[[bytes], bool]) -> bool:
        """Pours what has come; whether there is nothing to wake anybody for."""
        assert self._waiter is not None
        if self._waiter.done():  # cancelled: what comes now is nobody's
            return False
        piece = incoming.take()
        if piece and not take(piece):
            self._wake(sated=True)
        return True

    def _read_on(self) -> None:
        """Room was made: reads from the socket again."""
        assert self._transport is not None
        self._held = False
        self._due_s = self._loop.time() + self._silence_s
        self._transport.resume_reading()

    def _shut(self) -> bool:
        return self.over or self._transport is None or self._transport.is_closing()

    def _send_more(self) -> None:
        while self._unsent is not None and not self._clogged and not self._shut():
            assert self._transport is not None
            piece, rest = self._unsent[:WRITE_SLICE_BYTES], self._unsent[WRITE_SLICE_BYTES:]
            self._unsent = rest if rest else None
            self._transport.write(piece)

    def _sending(self) -> bool:
        return self._unsent is not None or (self._transport is not None and self._transport.get_write_buffer_size() > 0)

    def _done(self, incoming: Incoming) -> None:
        self._incoming = None
        self._lingering = False
        if incoming.reusable and not self._held and not self._sending():
            self._home.freed(self)
        else:
            self._end(reset=self._sending())

    def _hung_up(self, reason: Exception | None) -> None:
        incoming = self._incoming
        if incoming is None:
            self._end()
        elif reason is None and incoming.end():
            self._done(incoming)
            self._wake()
        elif isinstance(reason, ssl.SSLError) and reason.reason in NOT_TAKEN:
            self._fail(FailureKind.CONNECT, f"{OURS_NOT_TAKEN} ({reason.reason.replace('_', ' ').lower()})", sent=False)
        elif isinstance(reason, OSError) and not incoming.arrived:
            why = f" ({reason.strerror})" if reason.strerror else ""
            self._fail(FailureKind.BROKEN, RESET + why)
        else:
            self._fail(FailureKind.BROKEN, BAD_BODY if incoming.arrived else CLOSED_EARLY)

    def _fail(self, kind: FailureKind, words: str, *, sent: bool = True) -> None:
        incoming, self._incoming = self._incoming, None
        assert incoming is not None
        incoming.fail(ProviderFailure(kind, words, sent=sent))
        self._end(reset=True)
        self._wake()

    def _end(self, *, reset: bool = False) -> None:
        if self.over:
            return
        self.over = True
        self._unsent = None
        self._write = _nowhere  # it knows the transport, which knows us
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._transport is not None:
            if reset:
                with_reset(self._transport)
            self._transport.abort()
        self._home.lost(self)

    async def _change(self) -> bool:
        """Waits for one. Whether it is that who was poured to wants no more."""
        waiter = self._waiter = self._loop.create_future()
        sated: bool = await waiter
        return sated

    def _wake(self, *, sated: bool = False) -> None:
        self._pour = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(sated)

    def _ring_at(self, due_s: float) -> None:
        """Looks after the silence at ``due_s``, or earlier if the alarm is set already."""
        self._due_s = due_s
        if self._alarm is not None:
            if self._alarm_s <= due_s:
                return
            self._alarm.cancel()
        self._alarm_s = due_s
        self._alarm = self._loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        incoming = self._incoming
        if incoming is None:
            return
        if self._held and not self._lingering:  # the silence is ours
            self._due_s = self._loop.time() + self._silence_s
        if self._due_s > self._loop.time():
            self._ring_at(self._due_s)
        elif incoming.arrived:
            self._fail(FailureKind.BROKEN, IDLE)
        else:
            self._fail(FailureKind.FIRST_TOKEN_TIMEOUT, SILENT)


def _nowhere(data: bytes) -> None:
    """Where the bytes of a connection go that is over."""


def with_reset(transport: asyncio.BaseTransport) -> None:
    """The connection's end will be a reset, which also drops what the other side has not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
