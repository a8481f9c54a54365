"""A mock provider that costs almost nothing: one answer, one stream of 31 events, prepared bytes, no parsing of JSON."""

from __future__ import annotations

import asyncio
import sys

import httptools
import uvloop

SENTENCE = "The quick brown fox jumps over the lazy dog and then it rests for a while under an old oak by the river bank"
WORDS = SENTENCE.split()
USAGE = '"usage":{"prompt_tokens":120,"completion_tokens":29,"total_tokens":149}'
BODY = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,"message":'
    '{"role":"assistant","content":"' + " ".join(WORDS) + " " + "." * 180 + '"},"finish_reason":"stop"}],' + USAGE + "}"
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


def _event(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _chunk(inside: str) -> str:
    return '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":[' + inside + "]"


DELTAS = [
    _event(_chunk('{"index":0,"delta":{"content":"' + word + ' "},"finish_reason":null}') + "}") for word in (WORDS * 2)[:28]
]
STREAM = [
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + DELTAS[0],
    *DELTAS[1:],
    _event(_chunk('{"index":0,"delta":{},"finish_reason":"stop"}') + "}"),
    _event(_chunk("") + "," + USAGE + "}"),
    _event("[DONE]") + b"0\r\n\r\n",
]


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.streams = False

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.streams = self.streams or b'"stream":true' in body or b'"stream": true' in body

    def on_message_complete(self) -> None:
        if self.streams:
            for piece in STREAM:
                self.transport.write(piece)
        else:
            self.transport.write(WHOLE)
        self.streams = False


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
