"""A mock provider that keeps its own log: one line a request, with the id that it was sent and the usage that it reported.

``python money_upstream.py LOG LATENCY_MIN_S LATENCY_MAX_S LIES_PERCENT`` prints its port. It ends with
SIGTERM, its log whole. What a request uses is drawn from its id alone; so many in a hundred report ten times of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import IO

import httptools
import uvloop

ID = b"x-client-request-id"
LIE = 10
DELTAS = 6
INPUT_TOKENS = (200, 300)
OUTPUT_TOKENS = (40, 60)
WORDS = "The quick brown fox jumps over the lazy dog and rests under an old oak"


class Answer:
    """What one request gets, drawn from its id."""

    def __init__(self, request_id: str, latency_s: tuple[float, float], lies_percent: int) -> None:
        draw = random.Random(hashlib.sha256(request_id.encode()).digest())
        self.factor = LIE if draw.randrange(100) < lies_percent else 1
        self.input = draw.randint(*INPUT_TOKENS) * self.factor
        self.output = draw.randint(*OUTPUT_TOKENS) * self.factor
        self.latency_s = draw.uniform(*latency_s)

    @property
    def usage(self) -> str:
        total = self.input + self.output
        return f'{{"prompt_tokens":{self.input},"completion_tokens":{self.output},"total_tokens":{total}}}'

    def whole(self) -> bytes:
        body = (
            '{"id":"c","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,"message":{"role":'
            f'"assistant","content":"{WORDS}"}},"finish_reason":"stop"}}],"usage":{self.usage}}}'
        ).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def last(self) -> bytes:
        return (
            event(chunk('{"index":0,"delta":{},"finish_reason":"stop"}') + "}")
            + event(chunk("") + f',"usage":{self.usage}}}')
            + event("[DONE]")
            + b"0\r\n\r\n"
        )


def event(text: str) -> bytes:
    said = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(said), said)


def chunk(inside: str) -> str:
    return '{"id":"c","object":"chat.completion.chunk","created":1,"model":"mock","choices":[' + inside + "]"


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DELTA = event(chunk('{"index":0,"delta":{"content":"' + WORDS[:12] + ' "},"finish_reason":null}') + "}")


class Served:
    """One request while it is served, and then its line in the log."""

    def __init__(self, request_id: str, answer: Answer, port: int) -> None:
        self.id = request_id
        self.port = port  # the gateway's end of the connection: which of its processes asked
        self.answer = answer
        self.asked_ns = time.monotonic_ns()

    def line(self, how: str) -> str:
        said = {
            "id": self.id,
            "asked_ns": self.asked_ns,
            "ended_ns": time.monotonic_ns(),
            "input": self.answer.input,
            "output": self.answer.output,
            "factor": self.answer.factor,
            "ended": how,
            "port": self.port,
        }
        return json.dumps(said) + "\n"


class Provider:
    """All requests; ``log`` is written as each of them ends."""

    def __init__(self, log: IO[str], latency_s: tuple[float, float], lies_percent: int) -> None:
        self.log = log
        self.latency_s = latency_s
        self.lies_percent = lies_percent
        self.serving: set[Served] = set()

    def begin(self, request_id: str, port: int) -> Served:
        served = Served(request_id, Answer(request_id, self.latency_s, self.lies_percent), port)
        self.serving.add(served)
        return served

    def end(self, served: Served, how: str) -> None:
        if served in self.serving:
            self.serving.remove(served)
            self.log.write(served.line(how))

    def close(self) -> None:
        for served in tuple(self.serving):
            self.end(served, "open")
        self.log.close()


class Connection(asyncio.Protocol):
    """Requests one after another, as a gateway sends them over a kept connection."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._served: Served | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self._parser = httptools.HttpRequestParser(self)
        self._port = int(transport.get_extra_info("peername")[1])
        self._request_id = ""
        self._streams = False

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == ID:
            self._request_id = value.decode()

    def on_body(self, body: bytes) -> None:
        self._streams = self._streams or b'"stream":true' in body

    def on_message_complete(self) -> None:
        served = self._served = self._provider.begin(self._request_id, self._port)
        loop = asyncio.get_running_loop()
        if self._streams:
            self._transport.write(HEAD + DELTA)
            pause_s = served.answer.latency_s / DELTAS
            self._timer = loop.call_later(pause_s, self._say, served, DELTAS - 1, pause_s)
        else:
            self._timer = loop.call_later(served.answer.latency_s, self._end, served, served.answer.whole())
        self._streams = False

    def _say(self, served: Served, left: int, pause_s: float) -> None:
        if left:
            self._transport.write(DELTA)
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._say, served, left - 1, pause_s)
        else:
            self._end(served, served.answer.last())

    def _end(self, served: Served, last: bytes) -> None:
        self._timer = self._served = None
        # before the bytes: nobody can have settled what was not said yet
        self._provider.end(served, "said")
        self._transport.write(last)

    def connection_lost(self, reason: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._served is not None:
            self._provider.end(self._served, "cut")


async def main(log: Path, latency_s: tuple[float, float], lies_percent: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    provider = Provider(log.open("w", buffering=1), latency_s, lies_percent)
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()
    server.close()
    provider.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), (float(sys.argv[2]), float(sys.argv[3])), int(sys.argv[4])))
