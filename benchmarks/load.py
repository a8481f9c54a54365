"""A load generator that costs little: raw HTTP/1.1 over kept connections, closed loop, callbacks only. It reads all answers.

No two requests are alike: each has its own word, and they go round 64 texts and as many tokens as there are.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast
from urllib.parse import urlsplit

import httptools
import uvloop
from upstream import ANSWER, BODY, EVENTS

VOCABULARY = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "omicron",
)
TEXTS = 64
BODY_BYTES = 952
WORD_CHARS = 16
REOPEN_S = 0.02
LATE_S = 60.0
"""How long an answer may take beyond a round's end; what takes longer is an error."""
EVENTS_MIN = EVENTS - 1  # a gateway may keep the usage's event to itself
OWN_BYTES_MAX = 1_024  # what a gateway may add to an answer
ANSWERED = ANSWER.encode()


T = TypeVar("T")


class Requests(Iterator[bytes]):
    """Requests to one URL, each different, from several senders in turn."""

    def __init__(
        self, url: str, senders: Sequence[Mapping[str, str]], model: str, *, stream: bool, body_bytes: int = BODY_BYTES
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.host, self.port, self.stream = parts.hostname, parts.port, stream
        chance = random.Random(7)
        made = [self._made(parts.path, each, model, chance, body_bytes) for each in _as_many(senders)]
        self._made_up = itertools.cycle(made)
        self._words = itertools.count(random.getrandbits(62))

    def _made(
        self, path: str, sender: Mapping[str, str], model: str, chance: random.Random, body_bytes: int
    ) -> tuple[bytes, bytes]:
        """What stands before the request's own word, and after it."""
        streams = '"stream":true,"stream_options":{"include_usage":true},' if self.stream else ""
        before = f'{{"model":"{model}",{streams}"messages":[{{"role":"user","content":"'
        chars = body_bytes - len(before) - WORD_CHARS - len(' "}]}')
        after = f' {" ".join(chance.choices(VOCABULARY, k=chars // 4))[:chars]}"}}]}}'
        lines = [f"{name}: {value}\r\n" for name, value in sender.items()]
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n{''.join(lines)}"
            f"content-type: application/json\r\ncontent-length: {body_bytes}\r\n\r\n"
        )
        return (head + before).encode(), after.encode()

    def __next__(self) -> bytes:
        before, after = next(self._made_up)
        return b"%b%016x%b" % (before, next(self._words), after)


def _as_many(senders: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return [senders[n % len(senders)] for n in range(max(TEXTS, len(senders)))]


@dataclass
class Round:
    """What one round saw: seconds of good answers and until their first bytes, and what was wrong with others."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    bytes_seen: set[int] = field(default_factory=set)
    load_cpu_s: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds


def quantile_us(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6 if ordered else float("nan")


def wrong_with(body: bytes, *, stream: bool) -> str:
    """Why an answer is not what the upstream said; empty when it is."""
    if stream:
        events = body.count(b"data: ")
        return "" if EVENTS_MIN <= events <= EVENTS and b"[DONE]" in body[-20:] else f"a stream of {events} events"
    fits = len(BODY) - 200 < len(body) < len(BODY) + OWN_BYTES_MAX and body.count(b"{") == body.count(b"}")
    return "" if fits and ANSWERED in body else f"a body of {len(body)} bytes"


class Client(asyncio.Protocol):
    """One connection: sends the next request as soon as an answer is whole."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # called from C, with no frame of ours
        self.began = self.first = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one in all but its ancestry
        self.parser = httptools.HttpResponseParser(self)
        self.send()

    def send(self) -> None:
        self.busy, self.first = True, 0.0
        self.began = time.perf_counter()
        self.transport.write(next(self.load.requests))

    def data_received(self, data: bytes) -> None:
        if not self.first:
            self.first = time.perf_counter()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.load.seen.errors["not HTTP"] += 1
            self.busy = False
            self.transport.close()

    def on_message_complete(self) -> None:
        took = time.perf_counter() - self.began
        seen, body = self.load.seen, self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        self.busy = False
        status = self.parser.get_status_code()
        wrong = wrong_with(body, stream=self.load.requests.stream) if status == 200 else f"status {status}"
        if wrong:
            seen.errors[wrong] += 1
        else:
            seen.latencies.append(took)
            seen.firsts.append(self.first - self.began)
            seen.bytes_seen.add(len(body))
        if time.perf_counter() >= self.load.end or not self.parser.should_keep_alive():
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self.load.seen.errors["connection lost"] += 1
        self.load.ended()


class Load:
    """``concurrency`` clients for ``seconds``; answers under way at the end are waited for and count."""

    def __init__(self, requests: Requests, concurrency: int, seconds: float) -> None:
        self.requests, self.concurrency, self.seconds = requests, concurrency, seconds
        self.seen = Round()
        self.end = 0.0
        self._open = 0
        self._done = asyncio.Event()

    async def run(self) -> Round:
        began, cpu = time.perf_counter(), time.process_time()
        self.end = began + self.seconds
        self._open = self.concurrency
        await asyncio.gather(*(self._connect() for _ in range(self.concurrency)))
        try:
            await asyncio.wait_for(self._done.wait(), self.seconds + LATE_S)
        except TimeoutError:
            self.seen.errors["no answer"] += self._open
        self.seen.seconds = time.perf_counter() - began
        self.seen.load_cpu_s = time.process_time() - cpu
        return self.seen

    def ended(self) -> None:
        """A connection is gone: another one takes its place until the round is over."""
        if time.perf_counter() < self.end:
            asyncio.get_running_loop().call_later(REOPEN_S, self._again)
            return
        self._open -= 1
        if not self._open:
            self._done.set()

    def _again(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        task.add_done_callback(_raised)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: Client(self), self.requests.host, self.requests.port
            )
        except OSError as refused:
            self.seen.errors[type(refused).__name__] += 1
            self.ended()


def _raised(task: asyncio.Task[None]) -> None:
    task.result()


def load(requests: Requests, concurrency: int, seconds: float) -> Round:
    """One round, with the collector still."""

    async def run() -> Round:
        return await Load(requests, concurrency, seconds).run()

    return quietly(lambda: uvloop.run(run()))


def quietly(run: Callable[[], T]) -> T:
    """``run`` without the collector's pauses: they would be taken for the gateway's."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return run()
    finally:
        gc.enable()
        gc.unfreeze()
