"""The whole governed path in one process, with nothing behind it: what a request costs a worker's own code, in CPU µs.

Every stage is the real one, over a real manifest, a real token, a real lease; logs and metrics are rendered and counted.
Only what lies beyond the process is played: the provider's answer is there at once, the store has room for everything, and
the recorder is a queue that nobody drains. `python benchmarks/whole_path.py [--stream]`; tests/unit/test_weight.py counts
its instructions.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from msgspec import structs

sys.path.insert(0, str(Path(__file__).parent))

from lease import Roomy

from shipworthy import bootstrap, pipeline
from shipworthy.adapters.identity.issuers import Issuers
from shipworthy.adapters.leasing.ledger import LeasedLedger
from shipworthy.adapters.leasing.quotas import ProviderQuotas
from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.adapters.telemetry.fanout import fan
from shipworthy.adapters.telemetry.logs import JsonLog
from shipworthy.adapters.telemetry.metrics import Metrics
from shipworthy.model.chat import Dialect
from shipworthy.model.exchange import Exchange, Outcome
from shipworthy.model.fleet import Fleet
from shipworthy.model.identity import Credentials
from shipworthy.model.op import Op, SystemClock, uuid7
from shipworthy.ports import Arrival, Entry, Intent, Live, Stages, TokenWish
from shipworthy.stages.path import stages_of

MANIFEST = """\
shipworthy: 1
name: path
environment: benchmark
requirements: {audit: {durability: relaxed, retention_days: 1, bodies: {retention_days: 1, bytes_max: 65536}}}
store: {path: store}
keys: {file: keys.json}
identity: {development_issuer: true}
tenants:
  acme:
    budget: {usd: 1000000, per: month}
    limits: {requests_per_min: 10000000, tokens_per_min: 1000000000, concurrent: 10000}
    teams: {bench: {budget: {usd: 1000000, per: month}}}
    roles: {agent: {groups: [bench], team: bench, use_cases: ["*"], clearance: internal}}
providers:
  mock: {kind: openai-compatible, base_url: "http://127.0.0.1:1/v1", concurrent_max: 10000}
models:
  small:
    provider: mock
    upstream: mock
    context_tokens_max: 100000
    output_tokens_max: 1000
    price: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}
use_cases:
  bench:
    job: Answer.
    done: {right: a, wrong: b, refuse: c}
    owner: bench
    risk: minimal
    data_class: internal
    mode: enforce
    tokens: {input_max: 90000, output_max: 1000}
    budget: {usd: 1000000, per: month}
    route:
      strategy: first
      models: [small]
      rules: [{id: high, when: "request.data_class > class.internal", models: [small]}]
"""
BODIES = 64
"""So many requests that differ go round."""
BATCH = 20
EVENTS = 29
USAGE = {"prompt_tokens": 120, "completion_tokens": 60, "total_tokens": 180}


def body(number: int, *, stream: bool) -> bytes:
    """About 950 bytes, no two alike."""
    said = {"role": "system", "content": "You are a helpful assistant. " * 8}
    asked = {"role": "user", "content": f"question {number}: " + "lorem ipsum dolor sit " * 28}
    return json.dumps({"model": "bench", "stream": stream, "max_tokens": 100, "messages": [said, asked]}).encode()


def whole_answer() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "word " * 70}, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "mock"}
    return json.dumps({**head, "choices": [choice], "usage": USAGE}).encode()


def streamed_answer() -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "mock"}
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": f"word {n} "}, None) for n in range(EVENTS)]
    events: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in [*deltas, ({}, "stop")]
    ]
    events.append({**head, "choices": [], "usage": USAGE})
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


class Answer:
    """An answer that is here already."""

    status = 200

    def __init__(self, content_type: str, content: bytes) -> None:
        self._content_type = content_type
        self._left = content

    def header(self, name: str) -> str:
        return self._content_type if name == "content-type" else ""

    async def read(self) -> bytes:
        given, self._left = self._left, b""
        return given

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        while piece := await self.read():
            if not take(piece):
                return True
        return False

    def finish(self) -> None: ...
    def close(self) -> None: ...


class AtOnce:
    """A provider whose answers are here at once."""

    def __init__(self) -> None:
        self._whole, self._streamed = whole_answer(), streamed_answer()

    async def post(self, path: str, body: bytes, *, traceparent: str, request_id: str, stream: bool) -> Answer:
        return Answer("text/event-stream", self._streamed) if stream else Answer("application/json", self._whole)

    async def close(self) -> None: ...


class Queue:
    """A recorder that makes the rows of a batch, as the writer's thread does, and keeps what came last."""

    def __init__(self) -> None:
        self.ledger: Any = None
        self.kept: deque[Entry | Intent] = deque(maxlen=1_000)
        self._batch: list[Entry] = []

    def enqueue(self, entry: Entry) -> None:
        if entry.hold is not None and isinstance(entry.hold.intent, Intent):
            entry.hold.intent.revoke()
        self.kept.append(entry)
        self._batch.append(entry)
        self.ledger.settled(entry)
        if len(self._batch) >= BATCH:
            for each in self._batch:
                each.made()
            self._batch.clear()

    def intend(self, intent: Intent) -> None:
        self.kept.append(intent)


class Nowhere:
    """A client that takes everything."""

    def __init__(self) -> None:
        self.payload_bytes = 0

    async def open(self, opening: object) -> None: ...

    def send(self, payloads: Sequence[bytes]) -> bool:
        self.payload_bytes += sum(map(len, payloads))
        return True

    async def drained(self) -> None: ...

    async def finish(self, opening: object, payload: bytes) -> None:
        self.payload_bytes += len(payload)

    async def refuse(self, refusal: Exception) -> None:
        raise refusal


async def nobody_is_paused(op: Op, grant: object) -> None: ...


class WholePath:
    """One worker's path, without a server around it."""

    def __init__(self, folder: Path, *, stream: bool = False) -> None:
        config = folder / "shipworthy.yaml"
        config.write_text(MANIFEST)
        loaded = bootstrap.read_manifest(config)
        self.clock = SystemClock()
        self.metrics = Metrics(folder / "metrics", "bench-1")
        self.observe = fan(JsonLog(None, "worker"), self.metrics)
        issuer = bootstrap.development_issuer(loaded)
        assert issuer is not None
        wish = TokenWish(tenant="acme", subject="ada", groups=("bench",), ttl_s=3_600)
        self.credentials = Credentials(bearer=issuer.mint(wish, uuid7(1), time.time_ns()))
        self.store: Any = Roomy()
        self.ledger = LeasedLedger(self.store, self.clock, self.observe, lambda: False)
        self.queue: Any = Queue()
        self.queue.ledger, self.ledger.recorder = self.ledger, self.queue
        self.live = self._live(loaded, issuer)
        self.sink: Any = Nowhere()
        self._bodies = [body(number, stream=stream) for number in range(BODIES)]

    def _live(self, loaded: Any, issuer: Any) -> Live:
        snapshot = loaded.snapshot
        settings = bootstrap.identity_settings(loaded.deployment.identity, snapshot.operator_groups)
        tokens = Issuers(self.clock, self.observe).adopt(settings, (issuer.trusted,))
        provider = snapshot.providers["mock"]
        endpoint: Any = None
        transport: Any = AtOnce()
        self.ways = {"mock": HttpUpstream(endpoint, provider.settings, transport=transport)}
        fleet = Fleet(self.clock.monotonic_ns(), lambda *_: None)
        repeats: Any = None
        stages = stages_of(
            snapshot,
            identify=bootstrap.make_identify(snapshot, tokens, None),
            paused=nobody_is_paused,
            ways=self.ways,
            fleet=fleet,
            ledger=self.ledger,
            quotas=ProviderQuotas(self.ledger),
            recorder=self.queue,
            repeats=repeats,
            took=lambda row: None,
        )
        return Live(snapshot, stages)

    @property
    def stages(self) -> Stages:
        return self.live.stages

    async def serve(self, number: int) -> Exchange:
        """One request, from its head to its last byte."""
        op = Op.for_request(self.clock, self.observe)
        content = self._bodies[number % BODIES]

        async def read_body() -> bytes:
            return content

        arrival = Arrival(dialect=Dialect.OPENAI_CHAT, credentials=self.credentials, read_body=read_body)
        x = Exchange(op)
        x.received.kept_bytes_max = self.live.snapshot.bodies.bytes_max
        await pipeline.serve(x, self.stages, arrival, self.sink)
        assert x.outcome is Outcome.SERVED, structs.asdict(self.queue.kept[-1].row)
        return x


async def measure(folder: Path, requests: int, rounds: int, *, stream: bool) -> tuple[list[float], dict[str, float]]:
    """CPU µs a request, round by round; and each stage's median."""
    path = WholePath(folder, stream=stream)
    turning = asyncio.create_task(path.ledger.run())
    for number in range(300):
        await path.serve(number)
    gc.collect()
    gc.freeze()
    costs = []
    for _ in range(rounds):
        began_ns = time.thread_time_ns()
        for number in range(requests):
            await path.serve(number)
        costs.append((time.thread_time_ns() - began_ns) / 1e3 / requests)
        await asyncio.sleep(0)
    took = defaultdict(list)
    for number in range(requests):
        for step in (await path.serve(number)).op.steps():
            took[step.stage].append(step.duration_ns / 1e3)
    turning.cancel()
    return costs, {stage: statistics.median(each) for stage, each in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", action="store_true", help="answers of 32 events")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs, stages = uvloop.run(measure(Path(folder), given.requests, given.rounds, stream=given.stream))
    found = {"us_a_request": round(statistics.median(costs), 1), "us_fastest": round(min(costs), 1)}
    if given.json:
        print(json.dumps({**found, "stages_us": {name: round(us, 1) for name, us in stages.items()}}, indent=2))
        return
    print(f"{found['us_a_request']} µs a request (fastest round {found['us_fastest']})")
    for name, us in stages.items():
        print(f"{name:>12} {us:6.1f}")


if __name__ == "__main__":
    main()
