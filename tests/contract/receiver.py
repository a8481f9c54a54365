"""A webhook's receiver on loopback, in a thread: keeps what is posted, and answers as a test says, badly too."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What one POST gets. ``silent_s`` passes before the first byte; ``raw`` replaces the whole answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    silent_s: float = 0.0
    raw: bytes | None = None


@dataclass(frozen=True)
class Post:
    """What arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Receiver:
    """``answers`` are given in order, then ``usual``."""

    def __init__(self, *answers: Answer, usual: Answer | None = None) -> None:
        self.posts: list[Post] = []
        self.answers = deque(answers)
        self.usual = usual or Answer()
        self.in_flight_max = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/told"

    def await_posts(self, count: int, seconds: float) -> list[Post]:
        """At least ``count``, or whatever is there when ``seconds`` are over."""
        deadline = time.monotonic() + seconds
        while len(self.posts) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return list(self.posts)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _take(self, post: Post) -> Answer:
        with self._lock:
            self.posts.append(post)
            self._in_flight += 1
            self.in_flight_max = max(self.in_flight_max, self._in_flight)
            return self.answers.popleft() if self.answers else self.usual

    def _gone(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver._take(Post(self.path, headers, body, time.time()))
                try:
                    receiver._over.wait(answer.silent_s) if answer.silent_s else None
                    with contextlib.suppress(OSError):  # the sender may have left
                        self._say(answer)
                finally:
                    receiver._gone()

            do_GET = do_POST

            def _say(self, answer: Answer) -> None:
                self.close_connection = True
                if answer.raw is not None:
                    self.wfile.write(answer.raw)
                    return
                self.send_response(answer.status)
                for name, value in ({"content-length": str(len(answer.body))} | answer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
