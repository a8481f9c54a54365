"""The data plane: a raw ASGI callable in front of the one pipeline.

Every route that reaches a provider is a line in ``ROUTES`` and goes through ``pipeline.serve``; there is no other. A request
keeps the snapshot that it began with. When the client leaves, what has not reached a provider is cancelled at once; what has
is drained, muted, for at most the use case's ``on_disconnect.drain_seconds``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from shipworthy import pipeline
from shipworthy.http.body import Body, Receive, Room
from shipworthy.http.headers import Head
from shipworthy.http.listing import model_body, models_body
from shipworthy.http.sink import KEEPALIVE_S, HttpSink, Send
from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Exchange
from shipworthy.model.observation import Refused
from shipworthy.model.op import Clock, Observe, Op
from shipworthy.ports import REPLAYED_BYTES_MAX, Live

IN_FLIGHT_MAX = 2_000
"""Requests that one worker has in hand at once; beyond it a request is refused before its head is looked at."""

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
    """The ASGI callable of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._in_flight: dict[asyncio.Task[Any], Exchange] = {}
        self._room = Room()

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        op = Op.for_request(self._worker.clock, self._worker.observe)
        dialect = ROUTES.get(path)
        sink = HttpSink(send, dialect or Dialect.OPENAI_CHAT, str(op.id))
        try:
            if dialect is None:
                await self._read(op, path, method, scope, sink)
            elif method != "POST":
                raise Refusal("server.method_not_allowed", method=method, path=path, allowed="POST")
            else:
                await self._exchange(op, dialect, scope, receive, sink)
        except Refusal as refusal:
            self._worker.observe(Refused(str(op.id), refusal.code, refusal.detail, _peer(scope)))
            await sink.refuse(refusal)

    async def _exchange(
        self, op: Op, dialect: Dialect, scope: Mapping[str, Any], receive: Receive, sink: HttpSink
    ) -> None:
        """One request through the pipeline, watched for the client's leaving."""
        if self._worker.draining:
            raise Refusal("server.draining", retry_after_s=1)
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            raise Refusal("server.overloaded", limit=IN_FLIGHT_MAX, retry_after_s=1)
        head = Head(scope["headers"])
        op.traceparent = head.traceparent
        body = Body(head, receive, self._room)
        live = self._worker.live

        async def read_body() -> bytes:
            return await body.read(x.principal.tenant, alone=len(live.snapshot.tenants) == 1)

        arrival = head.arrival(dialect, read_body, _peer(scope))
        x = Exchange(op, arrival.peer, arrival.session, arrival.idempotency_key)
        replayed_bytes_max = REPLAYED_BYTES_MAX if x.idempotency_key else 0  # also where no bodies are kept
        x.received.kept_bytes_max = max(live.snapshot.bodies.bytes_max, replayed_bytes_max)
        task = asyncio.current_task()
        assert task is not None
        self._in_flight[task] = x
        watch = asyncio.create_task(self._watch(x, body, sink, task))
        nudge = asyncio.get_running_loop().call_later(KEEPALIVE_S, _keep_alive, x, sink)
        try:
            await pipeline.serve(x, live.stages, arrival, sink)
        except asyncio.CancelledError:
            if not op.left:
                await sink.refuse(Refusal("server.draining"))
            task.uncancel()
        finally:
            watch.cancel()
            nudge.cancel()
            sink.ended()
            body.drop()
            del self._in_flight[task]

    async def _watch(self, x: Exchange, body: Body, sink: HttpSink, task: asyncio.Task[Any]) -> None:
        """Waits for the client to leave."""
        await body.gone()
        x.op.left = sink.muted = True
        if hasattr(x, "route"):
            await asyncio.sleep(x.grant.use_case.drain_seconds)
        task.cancel()

    async def _read(self, op: Op, path: str, method: str, scope: Mapping[str, Any], sink: HttpSink) -> None:
        """What is answered without a provider."""
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
            principal = await live.stages.identify(op, Head(scope["headers"]).credentials())
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


def _keep_alive(x: Exchange, sink: HttpSink) -> None:
    if hasattr(x, "route") and x.request.stream:
        sink.keep_alive()


def _peer(scope: Mapping[str, Any]) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
