"""Clients: each has one request in flight, half of them streams, until nothing of any budget can be had any more.

Who is refused for money asks again after a while, which doubles up to a bound, or for another use case or team meanwhile. A
kind of request is over when it is refused and none of its kind was admitted for ``quiet_s``: longer than anything that may
still be given back takes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import httptools

WORDS = " ".join(
    random.Random(7).choices(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"], k=110)
)
PATIENCE_S = 120.0
PAUSE_S_MIN = 0.4
PAUSE_S_MAX = 4.0
TROUBLE_S = 0.5
"""How long a client waits before it asks again after a lost connection; after a refusal, as long as it was told to."""
EXHAUSTED = b"reserve.budget_exhausted"
CODE = b'"code":"'
RETRY_AFTER_S_MAX = 10.0
TAIL_BYTES = 4_096


@dataclass(frozen=True)
class Sort:
    """A kind of request: on whose budgets it is."""

    team: str
    use_case: str


SORTS = (Sort("a", "chat"), Sort("a", "write"), Sort("b", "chat"), Sort("b", "write"))


@dataclass
class Asked:
    """One request as its client saw it; times are monotonic."""

    id: str
    sent_ns: int
    ended_ns: int
    ended: str  # served, left, lost, late, cut, or the code of a refusal


@dataclass
class Demand:
    """What all clients share: where to ask, with which words, and what is over."""

    ports: list[int]
    tokens: dict[str, str]
    leave_share: float  # of requests whose client goes before the answer is whole
    leave_s_max: float
    quiet_s: float
    ends_at: float  # until then nothing is over (monotonic)
    stop_at: float  # whatever happens
    over: dict[Sort, str] = field(default_factory=dict)
    admitted_at: dict[Sort, float] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    def open(self) -> list[Sort]:
        return [sort for sort in SORTS if sort not in self.over]

    def refused(self, sort: Sort) -> None:
        now = time.monotonic()
        if now > max(self.admitted_at.get(sort, 0.0), self.ends_at) + self.quiet_s:
            self.over.setdefault(sort, "spent")

    def note(self, asked: Asked) -> None:
        self.asked.append(asked)
        self.ends[asked.ended] += 1


class Connection(asyncio.Protocol):
    """One answer after another over a kept connection."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] | None = None
        self.status = 0
        self.id = ""
        self.retry_after_s = TROUBLE_S
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def ask(self, request: bytes) -> asyncio.Future[None]:
        self._parser = httptools.HttpResponseParser(self)
        self.status, self.id, self.tail, self.retry_after_s = 0, "", b"", TROUBLE_S
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-shipworthy-request-id":
            self.id = value.decode()
        elif name.lower() == b"retry-after":
            self.retry_after_s = min(float(value), RETRY_AFTER_S_MAX)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.tail = (self.tail + body)[-TAIL_BYTES:]

    def on_message_complete(self) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, reason: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(ConnectionResetError())

    def ended(self, stream: bool) -> str:
        """How the answer ended, once it is whole."""
        if self.status == 200 and (not stream or self.tail.endswith(b"data: [DONE]\n\n")):
            return "served"
        code = self.tail.partition(CODE)[2].partition(b'"')[0].decode(errors="replace")
        return code or f"cut ({self.status})"


def request(port: int, token: str, sort: Sort, *, stream: bool) -> bytes:
    """About 900 bytes; no two alike."""
    body = (
        f'{{"model":"{sort.use_case}","stream":{str(stream).lower()},'
        f'"messages":[{{"role":"user","content":"{random.randbytes(8).hex()} {WORDS}"}}]}}'
    )
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Client:
    """One of them. Its requests are streams every other time."""

    def __init__(self, number: int, demand: Demand) -> None:
        self._number = number
        self._demand = demand
        self._port = demand.ports[number % len(demand.ports)]
        self._connection: Connection | None = None
        self._again_at: dict[Sort, float] = {}
        self._pause_s: dict[Sort, float] = {}
        self._stream = number % 4 < 2  # half of each server's

    async def run(self) -> None:
        demand = self._demand
        while demand.open() and time.monotonic() < demand.stop_at:
            now = time.monotonic()
            ready = [sort for sort in demand.open() if self._again_at.get(sort, 0.0) <= now]
            if not ready:
                soonest = min(self._again_at[sort] for sort in demand.open())
                await asyncio.sleep(max(0.01, soonest - now))
                continue
            await self._once(random.choice(ready))
        if self._connection is not None:
            self._connection.transport.close()

    async def _once(self, sort: Sort) -> None:
        stream, self._stream = self._stream, not self._stream
        sent_ns = time.monotonic_ns()
        ended = await self._ask(sort, stream)
        connection = self._connection
        exchange = connection.id if connection is not None else ""
        self._demand.note(Asked(exchange, sent_ns, time.monotonic_ns(), ended))
        if connection is not None and connection.transport.is_closing():
            self._connection = None
        if ended in ("served", "left"):
            self._pause_s.pop(sort, None)
            if ended == "served":
                self._demand.admitted_at[sort] = time.monotonic()
        elif ended.encode() == EXHAUSTED:
            self._demand.refused(sort)
            pause_s = self._pause_s[sort] = min(self._pause_s.get(sort, PAUSE_S_MIN / 2) * 2, PAUSE_S_MAX)
            self._again_at[sort] = time.monotonic() + pause_s * random.uniform(0.5, 1.5)
        else:
            pause_s = connection.retry_after_s if connection is not None else TROUBLE_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))

    async def _ask(self, sort: Sort, stream: bool) -> str:
        demand = self._demand
        leaves = random.random() < demand.leave_share
        patience_s = random.uniform(0.0, demand.leave_s_max) if leaves else PATIENCE_S
        try:
            async with asyncio.timeout(patience_s):
                if self._connection is None or self._connection.transport.is_closing():
                    loop = asyncio.get_running_loop()
                    _, self._connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
                await self._connection.ask(request(self._port, demand.tokens[sort.team], sort, stream=stream))
        except TimeoutError:
            if self._connection is not None:
                self._connection.transport.abort()
            return "left" if leaves else "late"
        except OSError:
            return "lost"
        return self._connection.ended(stream)


async def load(demand: Demand, clients: int) -> None:
    """``clients`` at once, until everything is over."""
    await asyncio.gather(*(Client(number, demand).run() for number in range(clients)))
