"""GET /metrics on a bind of its own: what Prometheus scrapes, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

TEXT = b"text/plain; version=1.0.0; charset=utf-8"
PLAIN = b"text/plain; charset=utf-8"


def metrics_app(directory: Path, exposition: Callable[[Path], bytes]) -> App:
    """The ASGI callable. ``exposition`` blocks, so it runs in a thread; scrapes wait for each other."""
    one_at_a_time = asyncio.Lock()

    async def app(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return None
        if scope["path"] != "/metrics":
            return await _answer(scope, send, 404, PLAIN, b"There is nothing here but /metrics.\n")
        if scope["method"] not in ("GET", "HEAD"):
            return await _answer(scope, send, 405, PLAIN, b"Only GET and HEAD are allowed at /metrics.\n")
        async with one_at_a_time:
            try:
                text = await asyncio.to_thread(exposition, directory)
            except OSError as reason:
                said = f"The metrics cannot be read: {reason.strerror or reason}\n".encode()
                return await _answer(scope, send, 503, PLAIN, said)
        return await _answer(scope, send, 200, TEXT, text)

    return app


async def _answer(scope: Mapping[str, Any], send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
