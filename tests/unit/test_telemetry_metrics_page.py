"""The metrics page answers one path, and says so elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from shipworthy.http.metrics_page import metrics_app


def ask(
    method: str, path: str, exposition: Any = lambda directory: f"seen {directory}\n".encode()
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    async def call() -> None:
        await metrics_app(Path("/there"), exposition)({"type": "http", "method": method, "path": path}, receive, send)

    asyncio.run(call())
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_metrics_are_text():
    status, headers, body = ask("GET", "/metrics")
    assert (status, body) == (200, b"seen /there\n")
    assert headers[b"content-type"].startswith(b"text/plain; version=")
    assert headers[b"content-length"] == b"12"


def test_head_has_the_length_and_no_body():
    status, headers, body = ask("HEAD", "/metrics")
    assert (status, headers[b"content-length"], body) == (200, b"12", b"")


def test_anything_else_is_not_found_and_other_methods_are_refused():
    assert ask("GET", "/")[0] == 404
    assert ask("GET", "/metrics/")[0] == 404
    status, headers, _ = ask("POST", "/metrics")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


def test_a_directory_that_cannot_be_read_is_unavailable():
    def gone(directory: Path) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    assert ask("GET", "/metrics", gone)[0] == 503
