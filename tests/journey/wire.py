"""Requests as bytes on a socket, for what no well-behaved client sends."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Answer:
    """One answer as it came; ``body`` is without its framing."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connect(base: str, seconds: float = 15.0) -> socket.socket:
    parts = urlsplit(base)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=seconds)


def head(token: str, *more: str, path: str = CHAT, method: str = "POST") -> bytes:
    """A request's head; ``more`` are header lines."""
    lines = (f"{method} {path} HTTP/1.1", "host: test", f"authorization: Bearer {token}", *more)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def request(token: str, body: object, *more: str, path: str = CHAT) -> bytes:
    """A whole request; ``body`` is JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(token, "content-type: application/json", f"content-length: {len(content)}", *more, path=path) + content


def read_answer(sock: socket.socket, left: bytearray | None = None) -> Answer:
    """The next answer on the connection. ``left`` keeps what came beyond it. Raises ConnectionError when it breaks off."""
    buffer = left if left is not None else bytearray()
    while b"\r\n\r\n" not in buffer:
        _more(sock, buffer)
    top, _, _ = bytes(buffer).partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    del buffer[: len(top) + 4]
    if headers.get("transfer-encoding") == "chunked":
        body = _chunks(sock, buffer)
    else:
        length = int(headers.get("content-length", "0"))
        while len(buffer) < length:
            _more(sock, buffer)
        body = bytes(buffer[:length])
        del buffer[:length]
    return Answer(int(lines[0].split()[1]), headers, body)


def _chunks(sock: socket.socket, buffer: bytearray) -> bytes:
    body = bytearray()
    while True:
        while b"\r\n" not in buffer:
            _more(sock, buffer)
        size = int(bytes(buffer).partition(b"\r\n")[0], 16)
        start = buffer.index(b"\r\n") + 2
        while len(buffer) < start + size + 2:
            _more(sock, buffer)
        body += buffer[start : start + size]
        del buffer[: start + size + 2]
        if not size:
            return bytes(body)


def _more(sock: socket.socket, buffer: bytearray) -> None:
    piece = sock.recv(65_536)
    if not piece:
        raise ConnectionError(f"closed after {bytes(buffer)!r}")
    buffer += piece


def closed(sock: socket.socket, seconds: float) -> bool:
    """Whether the other side closes within ``seconds``; what it still says is read away."""
    sock.settimeout(seconds)
    try:
        while sock.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
