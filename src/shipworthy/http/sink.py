"""The answer's way out: status, headers, server-sent events, and errors in the dialect's own shape."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shipworthy.http.errors import error_event, render
from shipworthy.http.headers import opening_fields
from shipworthy.http.wire.answer import Answer, fields
from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal
from shipworthy.ports import Opening, Stored

KEEPALIVE_S = 15.0
"""A stream whose first token takes longer gets a comment each time, so that proxies between us keep it open."""

_JSON = b"content-type: application/json\r\n"
_EVENTS = (
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache, no-transform\r\n"
    b"x-accel-buffering: no\r\n"
)
_payloads = msgspec.msgpack.Decoder(list[bytes]).decode


class HttpSink:
    """One answer, as ports.Sink wants it."""

    __slots__ = ("_answer", "_dialect", "_request_id", "_waits")

    def __init__(self, answer: Answer, dialect: Dialect, request_id: str) -> None:
        self._answer = answer
        self._dialect = dialect
        self._request_id = request_id
        self._waits = True  # only comments were sent so far, if anything

    async def open(self, opening: Opening) -> None:
        self._open(opening)

    def send(self, payloads: Sequence[bytes]) -> bool:
        answer = self._answer
        if payloads:
            answer.write(b"".join(map(framed, payloads)))
        return not answer.paused

    async def drained(self) -> None:
        await self._answer.drained()

    async def finish(self, opening: Opening, payload: bytes) -> None:
        if opening.stream:
            self._open(opening)
            self._answer.end(framed(payload) if payload else b"")
        else:
            self._whole(200, opening_fields(opening), payload)

    async def replay(self, stored: Stored) -> None:
        replayed = fields([("x-shipworthy-source", "replay"), ("x-shipworthy-replay-of", str(stored.exchange_id))])
        if stored.content_type == "text/event-stream":
            self._start(replayed)
            self._answer.end(b"".join(map(framed, _payloads(stored.body))))
        else:
            self._whole(stored.status, replayed + b"x-shipworthy-cost-usd: 0.000000000\r\n", stored.body)

    async def refuse(self, refusal: Refusal) -> None:
        if not self._answer.started:
            rendered = render(refusal, self._dialect, self._request_id)
            self._whole(rendered.status, fields(rendered.headers), rendered.body)
        elif not self._answer.ended:
            name, payload = error_event(refusal, self._dialect, self._request_id)
            named = b"event: " + name.encode() + b"\n" if name else b""
            self._answer.end(named + framed(payload))

    async def answer(self, status: int, value: object) -> None:
        """A JSON value that is no exchange: health, the list of models."""
        self._whole(status, b"", msgspec.json.encode(value))

    def keep_alive(self) -> bool:
        """A comment, while nothing else was sent; else False. The status is then decided: a later refusal is an event."""
        if self._waits and not self._answer.started:
            self._start(b"")
        if self._waits and not self._answer.paused:
            self._answer.write(b": waiting for the first token\n\n")
        return self._waits

    def _open(self, opening: Opening) -> None:
        self._waits = False
        if not self._answer.started:
            self._start(opening_fields(opening))

    def _start(self, more: bytes) -> None:
        self._answer.start(200, b"".join((_EVENTS, more, self._identity())))

    def _whole(self, status: int, more: bytes, body: bytes) -> None:
        self._waits = False
        self._answer.whole(status, b"".join((_JSON, more, self._identity())), body)

    def _identity(self) -> bytes:
        return b"x-shipworthy-request-id: %b\r\nserver: shipworthy\r\n" % self._request_id.encode()


def framed(payload: bytes) -> bytes:
    """One event. A payload of several lines, as a provider may send it, stays one: no line of it is read as a field."""
    if b"\n" in payload or b"\r" in payload:
        payload = b"\ndata: ".join(payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"data: %b\n\n" % payload
