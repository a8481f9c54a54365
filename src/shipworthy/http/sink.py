"""The answer's way out: status, headers, server-sent events, and errors in the dialect's own shape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from shipworthy.http.errors import error_event, render
from shipworthy.http.headers import Headers, opening_headers
from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal
from shipworthy.ports import Opening, Stored

KEEPALIVE_S = 15.0
"""A stream whose first token takes longer gets a comment each time, so that proxies between us keep it open."""

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_payloads = msgspec.msgpack.Decoder(list[bytes]).decode


class HttpSink:
    """One answer. ``muted`` is set when the client has left: what follows goes nowhere."""

    __slots__ = ("_dialect", "_pings", "_request_id", "_send", "_started", "_streams", "_waits", "muted")

    def __init__(self, send: Send, dialect: Dialect, request_id: str) -> None:
        self._send = send
        self._dialect = dialect
        self._request_id = request_id
        self._started = False
        self._streams = False
        self._waits = False  # only comments were sent so far
        self._pings: asyncio.Task[None] | None = None
        self.muted = False

    async def open(self, opening: Opening) -> None:
        self._waits = False
        if not self._started:
            self._streams = True
            await self._start(200, [*_EVENTS, *opening_headers(opening)])

    async def send(self, payload: bytes) -> None:
        await self._write(framed(payload), more=True)

    async def finish(self, opening: Opening, payload: bytes) -> None:
        if opening.stream:
            await self.open(opening)
            await self._write(framed(payload) if payload else b"", more=False)
        else:
            await self._whole(200, payload, opening_headers(opening))

    async def replay(self, stored: Stored) -> None:
        extra = [
            (b"x-shipworthy-source", b"replay"),
            (b"x-shipworthy-replay-of", str(stored.exchange_id).encode()),
        ]
        if stored.content_type == "text/event-stream":
            await self._start(stored.status, [*_EVENTS, *extra])
            await self._write(b"".join(map(framed, _payloads(stored.body))), more=False)
        else:
            await self._whole(stored.status, stored.body, [*extra, (b"x-shipworthy-cost-usd", b"0.000000000")])

    async def refuse(self, refusal: Refusal) -> None:
        if not self._started:
            rendered = render(refusal, self._dialect, self._request_id)
            headers = [(name.encode(), value.encode()) for name, value in rendered.headers]
            await self._whole(rendered.status, rendered.body, headers)
        elif self._streams:
            name, payload = error_event(refusal, self._dialect, self._request_id)
            named = b"event: " + name.encode() + b"\n" if name else b""
            await self._write(named + framed(payload), more=False)

    async def answer(self, status: int, value: object) -> None:
        """A JSON value that is no exchange: health, the list of models."""
        await self._whole(status, msgspec.json.encode(value), [])

    def keep_alive(self) -> None:
        """A comment every 15 s until the first token. The status is then decided: a later refusal is an event."""
        if not self._started:
            self._pings = asyncio.get_running_loop().create_task(self._ping())

    def ended(self) -> None:
        """Nothing more will be sent."""
        if self._pings is not None:
            self._pings.cancel()

    async def _ping(self) -> None:
        while not self._started or self._waits:
            if not self._started:
                self._streams = self._waits = True
                await self._start(200, _EVENTS)
            await self._write(b": waiting for the first token\n\n", more=True)
            await asyncio.sleep(KEEPALIVE_S)

    async def _whole(self, status: int, body: bytes, headers: Headers) -> None:
        await self._start(status, [_JSON, (b"content-length", b"%d" % len(body)), *headers])
        await self._write(body, more=False)

    async def _start(self, status: int, headers: Headers) -> None:
        self._started = True
        if not self.muted:
            head = [*headers, (b"x-shipworthy-request-id", self._request_id.encode()), (b"server", b"shipworthy")]
            await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def _write(self, body: bytes, *, more: bool) -> None:
        if not self.muted:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


def framed(payload: bytes) -> bytes:
    """One event. A payload of several lines, as a provider may send it, stays one: no line of it is read as a field."""
    if b"\n" in payload or b"\r" in payload:
        payload = b"\ndata: ".join(payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"data: " + payload + b"\n\n"
