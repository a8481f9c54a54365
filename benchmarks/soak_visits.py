"""Visitors at a given rate: answers, streams, providers that fail, and clients that leave at any moment."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import httptools
from load import Requests, wrong_with

MIX = {"whole": 60, "burst": 20, "paced": 6, "faulty": 6, "left": 6, "half": 2}
"""Of a hundred visits. ``left`` goes away while it waits or reads; ``half`` sends half of a request and goes."""
LEAVE_S_MAX = 0.2
BEHIND_S_MAX = 1.0
"""Who is later than this has missed its turn: the load must not be made up for in bursts."""
ANSWER_S_MAX = 60.0
VISITORS = 48


class Connection(asyncio.Protocol):
    """One connection: a request, and a future of its status and body. Status 0: it was cut."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpResponseParser(self)
        self.pieces: list[bytes] = []
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self.pieces.clear()
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self._end(self.parser.get_status_code())
        if not self.parser.should_keep_alive():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(0)

    def _end(self, status: int) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((status, b"".join(self.pieces)))


class Visits:
    """``rate`` visits a second until ``stop``; ``seen`` counts what they met, ``wrong`` what they should not have."""

    def __init__(self, requests: Mapping[str, Requests], rate: float) -> None:
        self.requests, self.rate = requests, rate
        self.seen: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._chance = random.Random(11)
        self._stopped = False
        self._come = asyncio.Event()
        self._come.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(VISITORS):
                group.create_task(self._visitor(n))

    def stop(self) -> None:
        self._stopped = True

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Nobody begins a visit meanwhile; those under way end."""
        self._come.clear()
        try:
            yield
        finally:
            self._come.set()

    async def _visitor(self, place: int) -> None:
        every, connection = VISITORS / self.rate, None
        due = time.monotonic() + place / self.rate
        kinds = self._kinds()
        while not self._stopped:
            due = max(due + every, time.monotonic() - BEHIND_S_MAX)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not self._come.is_set():
                await self._come.wait()
                due = time.monotonic() + place / self.rate
            connection = await self._visit(next(kinds), connection)
        if connection is not None:
            connection.transport.close()

    def _kinds(self) -> Iterator[str]:
        names, weights = list(MIX), list(MIX.values())
        while True:
            yield from self._chance.choices(names, weights, k=64)

    async def _visit(self, kind: str, connection: Connection | None) -> Connection | None:
        """One visit; the connection, if it can be used again."""
        asked = self._chance.choice(("whole", "paced")) if kind in ("left", "half") else kind
        requests = self.requests[asked]
        try:
            if connection is None or connection.transport.is_closing():
                connection = await self._connect(requests)
            if kind == "half":
                request = next(requests)
                connection.transport.write(request[: self._chance.randrange(len(request))])
                await asyncio.sleep(self._chance.random() * LEAVE_S_MAX)
            answer = connection.ask(next(requests)) if kind != "half" else None
            if kind == "left":
                await asyncio.sleep(self._chance.random() * LEAVE_S_MAX)
            if answer is None or kind == "left":
                connection.transport.abort()
                self.seen[kind] += 1
                return None
            async with asyncio.timeout(ANSWER_S_MAX):
                status, body = await answer
        except (OSError, TimeoutError) as failed:
            self.wrong[f"{kind}: {type(failed).__name__}"] += 1
            return None
        self._judge(kind, status, body, stream=requests.stream)
        return connection

    async def _connect(self, requests: Requests) -> Connection:
        _, made = await asyncio.get_running_loop().create_connection(Connection, requests.host, requests.port)
        return made

    def _judge(self, kind: str, status: int, body: bytes, *, stream: bool) -> None:
        """A provider's fault may reach the client as any refusal, but as an answer of HTTP; all else must be right."""
        self.seen[f"{kind} {status}" if kind == "faulty" else kind] += 1
        wrong = ""
        if kind == "faulty":
            wrong = "" if status else "cut without an answer"
        else:
            wrong = wrong_with(body, stream=stream) if status == 200 else f"status {status}"
        if wrong:
            self.wrong[f"{kind}: {wrong}"] += 1
