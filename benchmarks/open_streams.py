"""Many streams open at once: each event says when the upstream sent it, so that its way through the gateway is known."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop
from load import Requests, quietly

STAMP = b'"content":"'
STAMP_DIGITS = 20
STARVED_S = 1.0
"""A stream that waits so long for its next event is starved; the upstream sends many a second."""
RAMP_PER_S = 243.9
"""Streams opened a second: no multiple of their rate, so that their events spread over time."""
END_S_MAX = 60.0


@dataclass
class Heard:
    """What the streams said while all of them were open. Times in ms."""

    later_ms: array[float] = field(default_factory=lambda: array("d"))
    """How much longer a gap between two events was than when the upstream sent them."""
    way_ms: array[float] = field(default_factory=lambda: array("d"))
    """From the upstream's sending to us."""
    gap_ms_max: float = 0.0
    starved: int = 0
    whole: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Listener(asyncio.Protocol):
    """One stream, from its request to its end."""

    def __init__(self, streams: OpenStreams) -> None:
        self.streams = streams
        self.rest = b""
        self.events = 0
        self.way_ms = 0.0
        self.heard_ns = 0
        self.starved = self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its ancestry
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(next(self.streams.requests))

    def data_received(self, data: bytes) -> None:
        self.now_ns = time.monotonic_ns()
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        said = self.rest + body if self.rest else body
        at, end = said.find(STAMP), 0
        while at >= 0 and at + len(STAMP) + STAMP_DIGITS <= len(said):
            end = at + len(STAMP) + STAMP_DIGITS
            self.event(int(said[at + len(STAMP) : end]))
            at = said.find(STAMP, end)
        self.rest = said[end:][-256:]

    def event(self, sent_ns: int) -> None:
        way_ms = (self.now_ns - sent_ns) / 1e6
        if self.events:
            gap_ms = (self.now_ns - self.heard_ns) / 1e6
            self.starved = self.starved or gap_ms > STARVED_S * 1e3
            if self.streams.all_open:
                heard = self.streams.heard
                heard.way_ms.append(way_ms)
                heard.later_ms.append(max(0.0, way_ms - self.way_ms))
                heard.gap_ms_max = max(heard.gap_ms_max, gap_ms)
        self.events += 1
        self.way_ms, self.heard_ns = way_ms, self.now_ns

    def on_message_complete(self) -> None:
        self.done = True
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        heard, status = self.streams.heard, self.parser.get_status_code()
        if self.done and status == 200 and self.events == self.streams.events:
            heard.whole += 1
        else:
            heard.wrong[f"status {status}, {self.events} events, {'ended' if self.done else 'cut'}"] += 1
        heard.starved += self.starved
        self.streams.closed()


class OpenStreams:
    """``count`` streams of ``events`` each. ``watch`` is told when all are open, and when the first of them ends."""

    def __init__(
        self, requests: Requests, count: int, events: int, watch: Callable[[bool], None], seconds_max: float
    ) -> None:
        self.requests, self.count, self.events, self.seconds_max = requests, count, events, seconds_max
        self.heard = Heard()
        self.all_open = False
        self._watch = watch
        self._left = count
        self._since = 0.0
        self._done = asyncio.Event()

    async def run(self) -> Heard:
        """Returns when the last one is over. TimeoutError when one never ends."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for n in range(self.count):
            await loop.create_connection(lambda: Listener(self), self.requests.host, self.requests.port)
            await asyncio.sleep(max(0.0, began + (n + 1) / RAMP_PER_S - loop.time()))
        self._opened(open=self._left == self.count)
        async with asyncio.timeout(self.seconds_max):
            await self._done.wait()
        return self.heard

    def _opened(self, *, open: bool) -> None:
        self.all_open = open
        self._watch(open)
        if open:
            self._since = time.monotonic()

    def closed(self) -> None:
        if self.all_open:
            self.all_open = False
            self.heard.seconds = time.monotonic() - self._since
            self._watch(False)
        self._left -= 1
        if not self._left:
            self._done.set()


def listen(requests: Requests, count: int, rate: int, seconds: float, watch: Callable[[bool], None]) -> Heard:
    """Streams of ``rate`` events a second, open together for ``seconds``; ``requests`` ask for ``steady`` of the same."""

    async def run() -> Heard:
        events = events_each(count, rate, seconds)
        return await OpenStreams(requests, count, events, watch, events / rate + END_S_MAX).run()

    return quietly(lambda: uvloop.run(run()))


def events_each(count: int, rate: int, seconds: float) -> int:
    """How many events make the first stream last until all are open, and ``seconds`` on."""
    return math.ceil(rate * (count / RAMP_PER_S + seconds))


def steady(count: int, rate: int, seconds: float) -> str:
    """The upstream's model that does it."""
    return f"steady-{rate}-{events_each(count, rate, seconds)}"
