"""One answer on its way out: whole in one write, or piece by piece. Nothing waits unless the client does not read.

The first piece in a turn of the loop is written at once, those after it leave the turn together, as one chunk in one write:
what a provider sends in a burst costs the framing of a burst, and what it sends at leisure waits for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Protocol

JOINED_BYTES_MAX = 65_536
"""A longer body is not copied behind its head, and no more is gathered before it is written."""

_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()) for status in HTTPStatus
}
_NAME = re.compile(r"[a-z0-9-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class Way(Protocol):
    """What an answer needs of its connection."""

    paused: bool
    write: Callable[[bytes], None]

    @property
    def keeping(self) -> bool:
        """Whether the connection may live on."""

    @property
    def date(self) -> bytes:
        """The Date field, as a line."""

    def now(self) -> float:
        """Loop time: the same for as long as a turn takes."""

    def soon(self, then: Callable[[], None], /) -> object:
        """Does ``then`` in the next turn of the loop."""

    async def drained(self) -> None:
        """Waits until the client has read enough, or is gone."""


class Answer:
    """One answer. After the client has left, what is written goes nowhere. ``fields`` are whole lines (``field``)."""

    __slots__ = (
        "_bodiless", "_chunked", "_gathered", "_gathered_bytes", "_turn", "_unsent_head", "_way", "ended", "gone", "keep",
        "started",
    )  # fmt: skip

    def __init__(self, way: Way, *, keep: bool, bodiless: bool, chunked: bool) -> None:
        self._way = way
        self._bodiless = bodiless  # HEAD
        self._chunked = chunked
        self._unsent_head = b""
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._turn = 0.0  # in which a piece was written at once
        self.keep = keep
        self.started = False
        self.ended = False
        self.gone = False

    @property
    def paused(self) -> bool:
        """The client does not read; whoever has more to say waits until it is ``drained``."""
        return self._way.paused

    async def drained(self) -> None:
        await self._way.drained()

    def whole(self, status: int, fields: bytes, body: bytes) -> None:
        """The whole answer."""
        assert not self.started
        self.started = self.ended = True
        if self.gone:
            return
        head = b"%bcontent-length: %d\r\n\r\n" % (self._head(status, fields), len(body))
        if self._bodiless:
            self._way.write(head)
        elif len(body) > JOINED_BYTES_MAX:
            self._way.write(head)
            self._way.write(body)
        else:
            self._way.write(head + body)

    def start(self, status: int, fields: bytes) -> None:
        """The head of an answer whose length nobody knows yet."""
        assert not self.started
        self.started = True
        if not self._chunked:
            self.keep = False  # its end is the connection's end
        framing = b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        self._unsent_head = self._head(status, fields) + framing
        self._way.soon(self._send)

    def write(self, piece: bytes) -> None:
        """A piece of an answer that was started."""
        assert self.started and not self.ended
        first = not self._gathered and not self._unsent_head
        if first and (turn := self._way.now()) != self._turn:
            self._turn = turn
            if piece and not self._bodiless and not self.gone:
                self._way.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
            return
        self._gathered.append(piece)
        self._gathered_bytes += len(piece)
        if self._gathered_bytes > JOINED_BYTES_MAX:
            self._send()
        elif first:
            self._way.soon(self._send)

    def end(self, piece: bytes = b"") -> None:
        """The last piece, and the end of the answer."""
        assert self.started
        assert not self.ended
        self.ended = True
        self._gathered.append(piece)
        self._send(b"0\r\n\r\n" if self._chunked and not self._bodiless else b"")

    def _send(self, tail: bytes = b"") -> None:
        """Writes what was gathered, if anything."""
        head, self._unsent_head = self._unsent_head, b""
        body = b"" if self._bodiless else b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_bytes = 0
        if body and self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        if (head or body or tail) and not self.gone:
            self._way.write(head + body + tail)

    def _head(self, status: int, fields: bytes) -> bytes:
        self.keep = self.keep and self._way.keeping
        line = _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        return b"".join((line, self._way.date, fields, b"" if self.keep else b"connection: close\r\n"))


def field(name: str, value: str) -> bytes:
    """A line of a head. Raises ValueError for what could end the line."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"no header field: {name!r}: {value!r}")
    return f"{name}: {value}\r\n".encode()


def fields(pairs: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(field(name, value) for name, value in pairs)


def plain(status: int, reason: str) -> bytes:
    """A whole answer in plain text, for what is not understood far enough to be answered in any dialect. It is the last."""
    said = reason.encode()
    return (
        _LINES[status]
        + b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(said)
        + said
    )
