"""Uvicorn's HTTP/1.1 protocol with the bounds that it lacks, for the control plane; the data plane has its own (``wire``).

A client that sends its head a byte at a time holds a connection for ``HEAD_SECONDS_MAX``, not for ever; one that does not
read what it asked for, for ``UNREAD_SECONDS_MAX``; one that goes on sending a body that was refused, for
``REFUSED_SECONDS_MAX``. Connections are bounded by ``CONNECTIONS_MAX``, or fewer where files are few: one more is closed at
once. What stands behind a chunked body (trailers) is no header: whoever checks headers in front of us does not see it. Nor
is there room for much of it: the parser would put it together piece by piece, which costs memory and, ever longer, the
loop's time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shipworthy.http.wire import bounds

_UPGRADE = re.compile(rb"(^|\n)upgrade:", re.IGNORECASE)
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class EdgeProtocol(HttpToolsProtocol):
    """HttpToolsProtocol that gives up on what is too slow or too large, and tells every request when its client has left."""

    connections_max = bounds.CONNECTIONS_MAX

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timers: dict[str, asyncio.TimerHandle] = {}  # head, unread, refused
        self._head_bytes = 0
        self._body_open = False  # the newest message's head is complete, its body is not
        self._beside_bytes = 0  # what came since then and is not covered by the body's own bytes
        self._answered: RequestResponseCycle | None = None  # whose turn it is: uvicorn itself only keeps the newest

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            transport.abort()
            return
        self._start("head", bounds.HEAD_SECONDS_MAX, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        for name in tuple(self._timers):
            self._stop(name)
        if self._answering():
            assert self._answered is not None
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start("unread", bounds.UNREAD_SECONDS_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop("unread")
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if "head" in self._timers:
            self._head_bytes += len(data)
            if self._head_bytes > bounds.HEAD_BYTES_MAX and not self._may_hold_body(data):
                self._give_up(_TOO_LARGE)
                return
        elif self._body_open:
            self._beside_bytes += len(data)
            if self._beside_bytes > bounds.HEAD_BYTES_MAX + len(data):  # of what came before, and was no body
                self._give_up(_TOO_LARGE)
                return
        super().data_received(data if self._body_open else without_upgrade(data))
        if not self._timers and not self._body_open and not self._answering() and not self.transport.is_closing():
            self._start(
                "head", bounds.HEAD_SECONDS_MAX, self._too_slow
            )  # blank lines between requests keep nothing alive

    def send_400_response(self, msg: str) -> None:
        if self._answering():
            self.transport.abort()  # in the midst of an earlier answer nothing else can be said
        else:
            super().send_400_response(msg)

    # -- the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if "head" not in self._timers:
            self._start("head", bounds.HEAD_SECONDS_MAX, self._too_slow)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._body_open:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_done()
        self._body_open, self._beside_bytes = True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_bytes = max(0, self._beside_bytes - bounds.FRAMING_BYTES_MAX * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_open = False
        self._stop("refused")
        super().on_message_complete()

    # -- the answer

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if self._body_open and self._answered is self.cycle:
            self._start("refused", bounds.REFUSED_SECONDS_MAX, self.transport.close)
        super().on_response_complete()

    def _answering(self) -> bool:
        return self._answered is not None and not self._answered.response_complete

    # -- the head

    def _may_hold_body(self, data: bytes) -> bool:
        """Whether the head may have ended within ``data``: then the parser decides, its body has bounds of its own."""
        return b"\r\n\r\n" in data

    def _head_done(self) -> None:
        self._head_bytes = 0
        self._stop("head")

    def _too_slow(self) -> None:
        if self._answering():  # the head of the next request may wait for its turn
            self._start("head", bounds.HEAD_SECONDS_MAX, self._too_slow)
        else:
            self._give_up(_TOO_SLOW)

    def _give_up(self, answer: bytes) -> None:
        self._head_done()
        if self._answering():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    # -- timers

    def _start(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, then)

    def _stop(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()


def without_upgrade(data: bytes) -> bytes:
    """``data`` of a head, its Upgrade field made one that means nothing.

    None is offered here, so the wish may be ignored (RFC 9110 §7.8); the parser would drop the body instead. Java's client
    wishes for h2c with every first request.
    """
    if b"pgrade" not in data and b"PGRADE" not in data:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\1x-ignored:", head) + end + rest
