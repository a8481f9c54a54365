"""A load generator: raw HTTP/1.1 over kept connections, closed loop, one request differing from the next."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

FILLER = " ".join(random.Random(7).choices(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"], k=120))


@dataclass
class Round:
    """What one round saw: latencies in seconds, answers that were not 200."""

    seconds: float
    latencies: list[float]
    failures: int

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile_us(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6


class Client(asyncio.Protocol):
    """One connection: sends, and resolves a future with the status when the answer is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.done: asyncio.Future[int] | None = None

    def send(self, request: bytes) -> asyncio.Future[int]:
        self.parser = httptools.HttpResponseParser(self)
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)  # type: ignore[attr-defined]
        return self.done

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self.done is not None
        self.done.set_result(self.parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(0)


def request(url: str, token: str, model: str, *, stream: bool) -> bytes:
    """About 950 bytes; no two alike."""
    parts = urlsplit(url)
    word = random.randbytes(8).hex()
    body = (
        f'{{"model":"{model}","stream":{str(stream).lower()},"messages":[{{"role":"user","content":"{word} {FILLER}"}}]}}'
    ).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run(url: str, token: str, model: str, *, stream: bool, concurrency: int, seconds: float) -> Round:
    """``concurrency`` clients for ``seconds``."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    failures = 0
    end = loop.time() + seconds

    async def client() -> None:
        nonlocal failures
        protocol: Client | None = None
        while loop.time() < end:
            if protocol is None or protocol.transport.is_closing():
                _, protocol = await loop.create_connection(Client, parts.hostname, parts.port)
            began = time.perf_counter()
            status = await protocol.send(request(url, token, model, stream=stream))
            if status == 200:
                latencies.append(time.perf_counter() - began)
            else:
                failures += 1
        if protocol is not None:
            protocol.transport.close()

    began = loop.time()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return Round(loop.time() - began, latencies, failures)
