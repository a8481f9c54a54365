"""A mock provider that costs almost nothing: prepared bytes, no JSON parsed. The model that is asked for says what it does:

``gpt-4o-mini``  one answer of 601 bytes, or a stream of 31 events at once
``gpt-4o``       the same, but the stream's events come one by one, 5 ms apart
``steady-R-N``   a stream of N events, R a second; each says when it was sent, on the machine's monotonic clock
``faulty``       one of ``FAULTS``, in turn, among good answers
Any other name is taken for the first. Gateways know the first two from their catalogues.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

import uvloop

WHOLE_MODEL, PACED_MODEL, FAULTY_MODEL = "gpt-4o-mini", "gpt-4o", "faulty"
GAP_S = 0.005
SENTENCE = (
    "The quick brown fox jumps over the lazy dog and then it rests for a while under an old oak by the river bank"
)
WORDS = (SENTENCE.split() * 2)[:28]
EVENTS = 3 + len(WORDS)
USAGE = '"usage":{"prompt_tokens":120,"completion_tokens":29,"total_tokens":149}'
ANSWER = f"{SENTENCE} {'.' * 256}"
BODY = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,"message":'
    f'{{"role":"assistant","content":"{ANSWER}"}},"finish_reason":"stop"}}],{USAGE}}}'
).encode()
HEAD = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
WHOLE = HEAD % (b"200 OK", len(BODY), BODY)
OPENING = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":['
HEAD_BYTES_MAX = 65_536
REQUEST_BYTES_MAX = 4 << 20

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_STREAMS = re.compile(rb'"stream": ?true')
_MODEL = re.compile(rb'"model": ?"([^"]*)"')
_STEADY = re.compile(rb"steady-(\d+)-(\d+)")


def _event(text: str) -> bytes:
    said = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(said), said)


def _delta(word: str) -> bytes:
    return _event(CHUNK + '{"index":0,"delta":{"content":"' + word + ' "},"finish_reason":null}]}')


LAST = [
    _event(CHUNK + '{"index":0,"delta":{},"finish_reason":"stop"}]}'),
    _event(CHUNK + "]," + USAGE + "}"),
    _event("[DONE]") + b"0\r\n\r\n",
]
STREAM = [OPENING + _delta(WORDS[0]), *(_delta(word) for word in WORDS[1:]), *LAST]
BURST = b"".join(STREAM)


def _refusal(status: bytes, message: bytes) -> bytes:
    body = b'{"error":{"message":"%s","type":"server_error"}}' % message
    return HEAD % (status, len(body), body)


FAULTS: dict[str, tuple[bytes, bool]] = {
    "busy": (_refusal(b"503 Service Unavailable", b"try later"), False),
    "broken": (_refusal(b"500 Internal Server Error", b"a fault"), False),
    "no JSON": (HEAD % (b"200 OK", 9, b'{"choices'), False),
    "half an answer": (WHOLE[:400], True),
    "gone": (b"", True),
}
"""What is said, and whether the connection is cut afterwards. A stream that is gone was cut after a third."""
GOOD_BETWEEN = 4  # answers between two faults: a circuit that is always open would let none through


class Upstream(asyncio.Protocol):
    """One connection, one request after the other."""

    faults: Iterator[tuple[bytes, bool]] = itertools.cycle(
        each for fault in FAULTS.values() for each in (fault, *[(WHOLE, False)] * GOOD_BETWEEN)
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one in all but its ancestry
        self.rest = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.rest = said = self.rest + data if self.rest else data
        head = said.find(b"\r\n\r\n") + 4
        if head < 4:
            assert len(said) < HEAD_BYTES_MAX
            return
        if (length := _LENGTH.search(said, 0, head)) is not None:
            whole = len(said) >= head + int(length[1])
        else:
            whole = not _CHUNKED.search(said, 0, head) or said.endswith(b"0\r\n\r\n")
        assert len(said) < REQUEST_BYTES_MAX
        if whole:
            self.rest = b""
            self.answer(said)

    def answer(self, request: bytes) -> None:
        found = _MODEL.search(request)
        model = found[1] if found is not None else b""
        streams = _STREAMS.search(request) is not None
        if model == b"faulty":
            self.fail(streams=streams)
        elif not streams:
            self.transport.write(WHOLE)
        elif model == b"gpt-4o":
            self.play(len(STREAM), GAP_S, STREAM.__getitem__)
        elif (steady := _STEADY.match(model)) is not None:
            rate, count = int(steady[1]), int(steady[2])
            self.play(count + len(LAST), 1 / rate, lambda n: LAST[n - count] if n >= count else _stamped(n))
        else:
            self.transport.write(BURST)

    def play(self, count: int, gap_s: float, event: Callable[[int], bytes]) -> None:
        """``count`` events, each at its own time however late the one before it was."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        def step(n: int) -> None:
            self.transport.write(event(n))
            if n + 1 < count:
                self.timer = loop.call_at(began + (n + 1) * gap_s, step, n + 1)

        step(0)

    def fail(self, *, streams: bool) -> None:
        said, cut = next(self.faults)
        if streams and said in (WHOLE, b""):
            said = BURST if said else BURST[: len(BURST) // 3]
        self.transport.write(said)
        if cut:
            self.transport.close()


def _stamped(n: int) -> bytes:
    """An event that says when it leaves: nanoseconds of the monotonic clock, as long as any other."""
    event = _delta(f"{time.monotonic_ns():020d}")
    return event if n else OPENING + event


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=4_096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.collect()
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
