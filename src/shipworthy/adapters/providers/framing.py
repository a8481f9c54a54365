"""One answer as its bytes arrive: head, body, end, and every bound on them. No sockets, no loop: bytes in, state out.

The parser is llhttp, left strict: two lengths, a length beside chunks, folded lines, bare line feeds and control characters
are refused by it. What it leaves open is decided here: sizes, interim answers, codings, and what follows the end.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from shipworthy.model.errors import ProviderFailure

HEADER_LINE_BYTES_MAX = 8_190
HEADERS_MAX = 100
FRAMING_BYTES_MAX = 65_536  # of a head that is not complete, or between two pieces of a body
INTERIM_MAX = 8  # 1xx answers before the one that counts
VERSIONS = ("1.1", "1.0")
BODILESS = (204, 304)


class Garbled(Exception):
    """What came is not an answer, or beyond the bounds of one."""


class Incoming:
    """An answer on its way. ``arrived``: its head is here; ``whole``: its end is; ``failure``: why it will not come."""

    __slots__ = (
        "_framing_bytes", "_interim", "_lines", "_parser", "_pieces", "_until_eof", "_wrong", "arrived", "buffered",
        "failure", "headers", "reusable", "status", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # lower case; of several lines with one name the first
        self.arrived = False
        self.whole = False
        self.reusable = False  # the connection may carry another request
        self.failure: ProviderFailure | None = None
        self.buffered = 0
        self._pieces: list[bytes] = []
        self._until_eof = False
        self._framing_bytes = 0
        self._lines = 0
        self._interim = 0
        self._wrong = ""
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. Raises Garbled; bytes beyond the answer's end only cost its connection."""
        parser = self._parser
        assert parser is not None, "an answer that is whole is not fed"
        self._framing_bytes += len(data)  # a piece of the body sets it back to 0
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as reason:
            self._wrong = self._wrong or str(reason)
        if self.whole:
            self._parser = None  # the parser knows this object: let both go
            if self._wrong:
                self.reusable = False
        elif self._wrong:
            raise Garbled(self._wrong)
        elif self._framing_bytes > FRAMING_BYTES_MAX:
            raise Garbled("more framing than FRAMING_BYTES_MAX")

    def end(self) -> bool:
        """The other side will send no more. Whether the answer is whole."""
        self.whole = self.whole or self._until_eof
        self._parser = None
        return self.whole

    def fail(self, failure: ProviderFailure) -> None:
        """What has come may still be taken; afterwards there is ``failure`` instead of more."""
        self.failure = failure
        self._parser = None

    def take(self) -> bytes:
        """The body's bytes that have come and were not taken; b"" when there are none."""
        pieces = self._pieces
        if not pieces:
            return b""
        self.buffered = 0
        self._pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # ------------------------------------------------------------------------------------- what the parser calls

    def on_message_begin(self) -> None:
        if self.whole:
            raise self._refused("an answer that nobody asked for")

    def on_status(self, reason: bytes) -> None:
        if len(reason) > HEADER_LINE_BYTES_MAX:
            raise self._refused("a reason longer than HEADER_LINE_BYTES_MAX")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines += 1
        if self._lines > HEADERS_MAX or len(name) + len(value) > HEADER_LINE_BYTES_MAX:
            raise self._refused("headers beyond HEADERS_MAX or HEADER_LINE_BYTES_MAX")
        if self.arrived:  # a trailer: counted, and of no meaning here
            return
        name = name.lower()
        if name not in self.headers:
            self.headers[name] = value
        elif name == b"transfer-encoding":
            raise self._refused("two transfer codings")

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        if status < 200 or parser.get_http_version() not in VERSIONS:
            raise self._refused("no answer of HTTP/1")
        coding = self.headers.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            raise self._refused("a transfer coding that was not asked for")
        self.status = status
        self.arrived = True
        self._until_eof = coding is None and b"content-length" not in self.headers and status not in BODILESS

    def on_body(self, piece: bytes) -> None:
        self._framing_bytes = 0
        self.buffered += len(piece)
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.arrived:
            assert self._parser is not None
            self.whole = True
            self.reusable = self._parser.should_keep_alive()
            return
        self._interim += 1
        if self._interim > INTERIM_MAX:
            raise self._refused("more interim answers than INTERIM_MAX")
        self.headers.clear()

    def _refused(self, why: str) -> Garbled:
        """Noted as well as raised: an exception has the parser between itself and ``feed``."""
        self._wrong = why
        return Garbled(why)
