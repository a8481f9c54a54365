"""Server-sent events out of a byte stream, as the WHATWG HTML standard reads them (section 9.2.6), with a bound.

Two differences: a line that is no field of the standard is a failure, and what stands before the end of a stream without a
blank line is given all the same (``end``). Ids and retry times are left aside: nothing here reconnects.
"""

from __future__ import annotations

from typing import NoReturn

from shipworthy.model.errors import FailureKind, ProviderFailure

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""One event, its lines included: an image in base64 fits; a stream without line ends does not fill memory."""

DATA = b"data: "
BLANK = b"\n\n"
BOM = b"\xef\xbb\xbf"
LEFT_ASIDE = frozenset({b"", b"id", b"retry"})
"""Comments and what nothing here needs. Any other line, which the standard ignores, is refused: a proxy's error page in
the middle of a stream, or half an event, would else be a gap in the answer that nobody notices."""
Framed = tuple[str, bytes]
"""An event's name ("" = none given) and its data."""


class SseSplitter:
    """Feeds on bytes however they are cut, and gives events in order. One a stream."""

    __slots__ = ("_buffer", "_bytes_max", "_cr_last", "_searched", "_started")

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._bytes_max = bytes_max
        self._searched = 0  # no blank line begins before here
        self._started = False  # past the place where a byte order mark may stand
        self._cr_last = False  # a line ended in CR: an LF that comes next belongs to it

    def feed(self, chunk: bytes) -> list[Framed]:
        """The events that ``chunk`` completes. Raises ProviderFailure INVALID when one grows beyond its bound."""
        if self._started and not self._cr_last and not self._buffer:
            line, _, rest = chunk.partition(b"\n")
            if rest == b"\n" and line.startswith(DATA) and b"\r" not in line:  # as most send a token
                return [("", line[6:])] if len(line) > 6 else []
        if b"\r" in chunk or self._cr_last:
            chunk = self._with_lf_only(chunk)
        if self._buffer or not self._started:
            chunk = self._joined(chunk)
        end = chunk.rfind(BLANK) + len(BLANK)
        if end >= len(BLANK) and chunk.startswith(DATA):
            payloads = chunk[len(DATA) : end - len(BLANK)].split(BLANK + DATA)
            if chunk.count(b"\n", 0, end) == len(BLANK) * len(payloads):  # nearly always: events of one line each
                self._keep(chunk[end:])
                return [("", payload) for payload in payloads if payload]
        return self._events(chunk)

    def _events(self, chunk: bytes) -> list[Framed]:
        *blocks, rest = chunk.split(BLANK)
        self._keep(rest)
        events: list[Framed] = []
        for block in blocks:
            dispatch(block, events)
        return events

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._buffer += rest
            self._searched = len(rest) - 1
            if len(rest) > self._bytes_max:
                self._too_large()

    def _joined(self, chunk: bytes) -> bytes:
        """``chunk`` behind what waits for it; nothing yet while that completes no event."""
        buffer = self._buffer
        buffer += chunk
        if (self._started or self._start()) and buffer.find(BLANK, self._searched) >= 0:
            chunk = bytes(buffer)
            buffer.clear()
            return chunk
        if len(buffer) > self._bytes_max:
            self._too_large()
        self._searched = max(0, len(buffer) - 1) if self._started else 0
        return b""

    def _too_large(self) -> NoReturn:
        detail = f"an event is larger than {self._bytes_max} bytes"
        raise ProviderFailure(FailureKind.INVALID, detail, sent=True)

    def end(self) -> list[Framed]:
        """What a stream that ended without a blank line still holds: servers that close right after their last line.

        The standard drops it; the dialect's own end mark decides here whether the reply was whole.
        """
        events: list[Framed] = []
        dispatch(bytes(self._buffer), events)
        self._buffer.clear()
        self._searched = 0
        return events

    def _start(self) -> bool:
        """Drops a byte order mark; False while it is not known whether there is one."""
        head = bytes(self._buffer[:3])
        if len(head) < len(BOM) and BOM.startswith(head):
            return False
        if head == BOM:
            del self._buffer[:3]
        self._started = True
        return True

    def _with_lf_only(self, chunk: bytes) -> bytes:
        if self._cr_last and chunk[:1] == b"\n":
            chunk = chunk[1:]
            if not chunk:
                self._cr_last = False
        if chunk:
            self._cr_last = chunk[-1:] == b"\r"
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def dispatch(block: bytes, events: list[Framed]) -> None:
    """Adds the event that the lines of ``block`` make, if they make one."""
    name, lines = "", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.decode(errors="replace")
        elif field not in LEFT_ASIDE:
            raise ProviderFailure(FailureKind.INVALID, "a line of the stream is no server-sent event", sent=True)
    if any(lines):  # a keepalive without data is no event
        events.append((name, b"\n".join(lines)))
