"""The data plane: what stands between the wire and the one pipeline.

Every route that reaches a provider is a line in ``ROUTES`` and goes through ``pipeline.serve``; there is no other. A request
keeps the snapshot that it began with. When the client leaves, what has not reached a provider is cancelled at once; what has
is drained, muted, for at most the use case's ``on_disconnect.drain_seconds``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from shipworthy import pipeline
from shipworthy.http.body import Body, Room
from shipworthy.http.headers import Head
from shipworthy.http.listing import model_body, models_body
from shipworthy.http.sink import KEEPALIVE_S, HttpSink
from shipworthy.http.wire.answer import Answer
from shipworthy.http.wire.request import Request
from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Exchange
from shipworthy.model.observation import Refused
from shipworthy.model.op import Clock, Observe, Op
from shipworthy.ports import REPLAYED_BYTES_MAX, Live

IN_FLIGHT_MAX = 2_000
"""Requests that one worker has in hand at once; beyond it a request is refused before its head is looked at."""

LOOK_S = KEEPALIVE_S / 15
"""How late a comment may come that keeps a waiting stream alive."""
NEVER = float("inf")

ROUTES: Mapping[str, Dialect] = {
    "/v1/chat/completions": Dialect.OPENAI_CHAT,
    "/v1/embeddings": Dialect.OPENAI_EMBEDDINGS,
}
MODEL = "/v1/models/"
READS = ("/v1/models", "/healthz", "/readyz")


class Worker(Protocol):
    """What the edge needs of the process that it runs in."""

    live: Live
    clock: Clock
    observe: Observe
    draining: bool

    def readiness(self) -> tuple[bool, Mapping[str, str]]:
        """Whether traffic may come, and each check in words."""


class DataPlane:
    """What one worker answers."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._in_flight: dict[asyncio.Task[Any], Watch] = {}
        self._room = Room()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looks = False  # at those in flight, again and again while there are some

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    async def __call__(self, request: Request, answer: Answer) -> None:
        op = Op.for_request(self._worker.clock, self._worker.observe)
        dialect = ROUTES.get(request.path)
        sink = HttpSink(answer, dialect or Dialect.OPENAI_CHAT, op.id_text)
        try:
            if dialect is None:
                await self._read(op, request, sink)
            elif request.method != "POST":
                raise Refusal("server.method_not_allowed", method=request.method, path=request.path, allowed="POST")
            else:
                await self._exchange(op, dialect, request, sink)
        except Refusal as refusal:
            self._worker.observe(Refused(op.id_text, refusal.code, refusal.detail, request.peer))
            await sink.refuse(refusal)

    def malformed(self, peer: str, status: int, reason: str) -> None:
        """What came was no request; its client has been told."""
        refusal = Refusal("server.malformed", reason=reason, detail=f"{status}: {reason}")
        self._worker.observe(Refused("", refusal.code, refusal.detail, peer))

    async def _exchange(self, op: Op, dialect: Dialect, request: Request, sink: HttpSink) -> None:
        """One request through the pipeline, which is told of the client's leaving."""
        if self._worker.draining:
            raise Refusal("server.draining", retry_after_s=1)
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            raise Refusal("server.overloaded", limit=IN_FLIGHT_MAX, retry_after_s=1)
        head = Head(request.headers)
        op.traceparent = head.traceparent
        body = Body(head, request, self._room)
        live = self._worker.live

        async def read_body() -> bytes:
            return await body.read(x.principal.tenant, alone=len(live.snapshot.tenants) == 1)

        arrival = head.arrival(dialect, read_body, request.peer)
        x = Exchange(op, arrival.peer, arrival.session, arrival.idempotency_key)
        replayed_bytes_max = REPLAYED_BYTES_MAX if x.idempotency_key else 0  # also where no bodies are kept
        x.received.kept_bytes_max = max(live.snapshot.bodies.bytes_max, replayed_bytes_max)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # a system call before Python 3.12
        loop = self._loop
        task = asyncio.current_task(loop)
        assert task is not None
        watch = self._in_flight[task] = Watch(x, request, body, sink, task, loop)
        if not self._looks:
            self._look(loop)
        try:
            await pipeline.serve(x, live.stages, arrival, sink)
        except asyncio.CancelledError:
            if not op.left:
                await sink.refuse(Refusal("server.draining"))
            task.uncancel()
        finally:
            watch.end()
            body.drop()
            del self._in_flight[task]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keeps those alive that have waited for long. One timer for all of them: most end before it rings."""
        now_s = loop.time()
        for watch in list(self._in_flight.values()):
            if watch.nudge_at_s <= now_s:
                watch.keep_alive(now_s)
        self._looks = bool(self._in_flight)
        if self._looks:
            loop.call_later(LOOK_S, self._look, loop)

    async def _read(self, op: Op, request: Request, sink: HttpSink) -> None:
        """What is answered without a provider."""
        path, method = request.path, request.method
        if path not in READS and not path.startswith(MODEL):
            raise Refusal("server.not_found", path=path[:200])
        if method not in ("GET", "HEAD"):
            raise Refusal("server.method_not_allowed", method=method, path=path, allowed="GET, HEAD")
        if path == "/healthz":
            await sink.answer(200, {"status": "alive"})
        elif path == "/readyz":
            ready, checks = self._worker.readiness()
            await sink.answer(200 if ready else 503, checks)
        else:
            live = self._worker.live
            principal = await live.stages.identify(op, Head(request.headers).credentials())
            name = path.removeprefix(MODEL)
            found = (
                models_body(live.snapshot, principal) if name == path else model_body(live.snapshot, principal, name)
            )
            await sink.answer(200, found)

    async def drain(self, seconds: float) -> int:
        """Waits for what is in flight, then cancels it and waits for its settlement; how many were cancelled."""
        if self._in_flight:
            await asyncio.wait(set(self._in_flight), timeout=seconds)
        cut = set(self._in_flight)
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut, timeout=SETTLE_SECONDS_MAX)
        return len(cut)


SETTLE_SECONDS_MAX = 10.0
"""After the drain, how long the settlement of cut exchanges may take."""


class Watch:
    """What happens beside an exchange: its client leaves, or waits long for the first token."""

    __slots__ = ("_body", "_loop", "_request", "_sink", "_stop", "_task", "_x", "nudge_at_s")

    def __init__(
        self, x: Exchange, request: Request, body: Body, sink: HttpSink, task: asyncio.Task[Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self._x = x
        self._request = request
        self._body = body
        self._sink = sink
        self._task = task
        self._loop = loop
        self._stop: asyncio.TimerHandle | None = None
        self.nudge_at_s = loop.time() + KEEPALIVE_S
        request.when_gone = self._left

    def end(self) -> None:
        """The exchange is over."""
        self._request.when_gone = None
        if self._stop is not None:
            self._stop.cancel()

    def _left(self) -> None:
        """The client has left. Whoever has yet to read its body hears of it there; else the exchange ends here."""
        if not self._body.whole:
            return
        x = self._x
        x.op.left = True
        if hasattr(x, "route"):
            self._stop = self._loop.call_later(x.grant.use_case.drain_seconds, self._task.cancel)
        else:
            self._task.cancel()

    def keep_alive(self, now_s: float) -> None:
        x = self._x
        waits = not (hasattr(x, "route") and x.request.stream) or self._sink.keep_alive()
        self.nudge_at_s = now_s + KEEPALIVE_S if waits and not self._request.gone else NEVER
