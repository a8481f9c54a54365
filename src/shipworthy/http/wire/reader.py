"""Bytes of a connection → requests. What could be read two ways is refused, never interpreted.

The grammar is llhttp's, in its strict mode: no bare LF, no folded lines, no second or doubtful Content-Length, none beside
Transfer-Encoding. What it lets pass and must not be is refused here: a Host that is missing or there twice, a coding that
is not ``chunked``, chunks in HTTP/1.0, another version, a tunnel, a head or framing without end. What stands behind a body
in chunks (trailers) is no header: whoever checks headers in front of us does not see it. No other protocol is offered, so a
wish for one (Upgrade) is ignored (RFC 9110 §7.8); Java's client wishes for h2c with every first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import unquote

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

from shipworthy.http.wire import bounds
from shipworthy.http.wire.request import Headers, Request

_FRAMING = frozenset((b"host", b"transfer-encoding", b"expect"))
_VERSIONS = ("1.1", "1.0")


class Malformed(Exception):
    """What came is no request that can be answered otherwise than with ``status``, and the connection's end."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class Reader:
    """Reads one connection. ``begin`` is told of each request whose head is here; its body follows."""

    __slots__ = (
        "_begin", "_beside_bytes", "_chunked", "_expects", "_head_bytes", "_headers", "_held_bytes", "_hosts", "_parser",
        "_paused", "_target", "_transport", "_upgrades", "_wanted", "body_open", "head_begun", "peer", "request",
    )  # fmt: skip

    def __init__(
        self, transport: asyncio.Transport, peer: str, begin: Callable[[Request], None], wanted: Callable[[int], None]
    ) -> None:
        self._transport = transport
        self.peer = peer
        self._begin = begin
        self._wanted = wanted
        self._parser = HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # ignored, instead of an error
        self._target = b""
        self._headers: Headers = []
        self._hosts = 0
        self._chunked = False
        self._expects = False
        self._upgrades = False  # the parser believes that what follows is another protocol
        self._head_bytes = 0
        self._beside_bytes = 0  # of a chunked body: what came and is not covered by the body's own bytes
        self._held_bytes = 0
        self._paused = False
        self.request: Request | None = None  # the newest
        self.head_begun = False
        self.body_open = False  # the newest request's head is complete, its body is not

    def feed(self, received: bytes) -> None:
        """Raises Malformed; nothing can be fed after it."""
        if not self.body_open:
            self._head_bytes += len(received)
        elif self._chunked:
            if self._beside_bytes > bounds.HEAD_BYTES_MAX:  # of what came before, and was no body
                raise Malformed(431, f"more than {bounds.HEAD_BYTES_MAX} bytes stand beside the body's own")
            self._beside_bytes += len(received)
        try:
            self._parse(received)
        except HttpParserCallbackError as stopped:
            raise (stopped.__context__ or stopped) from None
        except HttpParserError as wrong:
            raise Malformed(400, str(wrong)) from None
        if (not self.body_open and self._head_bytes > bounds.HEAD_BYTES_MAX) or len(self._headers) > bounds.HEADERS_MAX:
            raise _too_large()

    def _parse(self, received: bytes) -> None:
        while True:
            try:
                return self._parser.feed_data(received)
            except HttpParserUpgrade as stopped:  # told the framing once more, it goes on behind the head
                received = self._framing() + received[stopped.args[0] :]

    def _framing(self) -> bytes:
        """A head that says nothing but how the open body is framed."""
        assert self.request is not None
        length = dict(self.request.headers).get(b"content-length", b"0")
        framing = b"transfer-encoding: chunked" if self._chunked else b"content-length: " + length
        return b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n"

    # -- the parser's callbacks

    def on_message_begin(self) -> None:
        self.head_begun = True
        self._target = b""

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.body_open:
            return
        name = name.lower()
        if name in _FRAMING:
            self._check(name, value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.body_open:  # the framing, said once more
            self.head_begun = False
            return
        parser, headers = self._parser, self._headers
        version, method = parser.get_http_version(), parser.get_method()
        self._check_head(version, method, headers)
        self.request = request = Request(method.decode(), path_of(self._target), headers, self.peer, self._wanted)
        request.keep = parser.should_keep_alive() and version == "1.1"
        request.old = version == "1.0"
        request.expects = self._expects and not request.old
        self._upgrades = parser.should_upgrade()
        self.body_open, self._beside_bytes = True, 0
        self.head_begun, self._head_bytes = False, 0
        self._headers, self._hosts, self._expects = [], 0, False
        self._begin(request)

    def on_body(self, piece: bytes) -> None:
        request = self.request
        assert request is not None
        if self._chunked:
            self._beside_bytes = max(0, self._beside_bytes - bounds.FRAMING_BYTES_MAX * len(piece))
        if not request.answered:
            self._hold(len(piece))
            request.came(piece)

    def on_message_complete(self) -> None:
        if self._upgrades:  # the body is still to come
            self._upgrades = False
            return
        assert self.request is not None
        self.body_open = self._chunked = False
        self.request.ended()

    # -- the head

    def _check(self, name: bytes, value: bytes) -> None:
        """Takes a field that decides how the request is read. Raises Malformed."""
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise Malformed(501, "the only transfer coding is chunked")
            self._chunked = True
        elif value.strip().lower() != b"100-continue":
            raise Malformed(417, "the only expectation is 100-continue")
        else:
            self._expects = True

    def _check_head(self, version: str, method: bytes, headers: Headers) -> None:
        if version not in _VERSIONS:
            raise Malformed(505, "the version is neither HTTP/1.1 nor HTTP/1.0")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            raise Malformed(400, "there must be one Host field")
        if method == b"CONNECT":
            raise Malformed(400, "there are no tunnels here")
        if self._chunked and version == "1.0":
            raise Malformed(400, "HTTP/1.0 has no transfer codings")
        if len(headers) > bounds.HEADERS_MAX:
            raise _too_large()
        if self._head_bytes > bounds.HEAD_BYTES_MAX and size_of(headers) + len(self._target) > bounds.HEAD_BYTES_MAX:
            raise _too_large()

    def end(self) -> None:
        """Nothing more is fed: the parser, which knows us, is let go."""
        del self._parser

    def forget(self, request: Request) -> None:
        """It is answered: an idle connection keeps nothing of it."""
        if self.request is request and not self.body_open:
            self.request = None

    # -- back-pressure

    def hold_head(self, request: Request) -> None:
        """Counts a head that must wait for its turn."""
        self._hold(size_of(request.headers))

    def let_go_head(self, request: Request) -> None:
        """Its turn has come."""
        self.let_go(size_of(request.headers))

    def let_go(self, size: int) -> None:
        """So much of what was held has been taken; reads on."""
        self._held_bytes -= size
        if self._paused and self._held_bytes <= bounds.HELD_BYTES_MAX:
            self._paused = False
            self._transport.resume_reading()

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        if self._held_bytes > bounds.HELD_BYTES_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()


def path_of(target: bytes) -> str:
    """The path that a request's target names; of an absolute one too. Raises Malformed."""
    if not target.startswith(b"/"):
        return _path_of_url(target)
    path = target.decode("ascii")  # the parser lets no other bytes pass
    for mark in "?#":
        path = path.partition(mark)[0]
    return unquote(path) if "%" in path else path


def _path_of_url(target: bytes) -> str:
    if target == b"*":
        return "*"
    if not target[:8].lower().startswith((b"http://", b"https://")):
        raise Malformed(400, "the target is neither a path nor an http URL")
    try:
        return unquote((parse_url(target).path or b"/").decode("ascii"))
    except HttpParserError as wrong:
        raise Malformed(400, str(wrong)) from None


def size_of(headers: Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _too_large() -> Malformed:
    return Malformed(431, f"the head has more than {bounds.HEAD_BYTES_MAX} bytes or {bounds.HEADERS_MAX} fields")
