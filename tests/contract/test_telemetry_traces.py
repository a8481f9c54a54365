"""Traces against a real OTLP receiver over HTTP: what arrives is what the row said; when nothing arrives, nobody waits."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shipworthy.adapters.telemetry import spans
from shipworthy.adapters.telemetry.spans import ROWS_MAX, Traces, traces_url
from shipworthy.kit.rows import MS, row
from shipworthy.model.exchange import Outcome
from shipworthy.model.observation import Observation, TelemetryDegraded


class Receiver(ThreadingHTTPServer):
    """A collector of one's own. ``status`` is what it answers; ``hold`` makes it answer late."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.received
            for each in request.resource_spans
            for scope in each.scope_spans
            for span in scope.spans
        ]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.hold.wait(30)
        self.server.paths.append(self.path)
        if self.server.status == 200:
            self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    server.server_close()
    thread.join(10)


def until(holds: Callable[[], object], within_s: float = 15.0) -> bool:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(holds())


def attributes_of(said: Any) -> dict[str, Any]:
    found = {}
    for each in said:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_row_arrives_as_a_trace(receiver):
    """Names, family, times, kinds and attributes, as a collector decodes them."""
    traces = Traces(receiver.url, "production", lambda said: pytest.fail(repr(said)), process_id="p1")
    one = row()
    traces.took(one)
    assert until(lambda: receiver.received)
    traces.close()
    assert receiver.paths == ["/v1/traces"]
    resource = attributes_of(receiver.received[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "shipworthy"
    assert resource["deployment.environment.name"] == "production"
    assert resource["service.instance.id"] == "p1"

    arrived = {span.name: span for span in receiver.spans()}
    stages = [step.stage for step in one.steps]
    assert list(arrived) == ["exchange support", *stages, "chat qwen3-8b", "chat gpt-4.1-mini"]
    root = arrived["exchange support"]
    assert {span.trace_id.hex() for span in receiver.spans()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    assert {span.parent_span_id for name, span in arrived.items() if name != root.name} == {root.span_id}
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (
        one.arrived_unix_ns,
        one.arrived_unix_ns + 1_850 * MS,
    )
    call = arrived["call"]
    assert (call.start_time_unix_nano - one.arrived_unix_ns, call.end_time_unix_nano - one.arrived_unix_ns) == (
        8 * MS,
        640 * MS,
    )

    server, internal, client = 2, 1, 3
    assert (root.kind, call.kind, arrived["chat qwen3-8b"].kind) == (server, internal, client)
    assert (root.status.code, arrived["chat qwen3-8b"].status.code) == (0, 2)
    said = attributes_of(arrived["chat gpt-4.1-mini"].attributes)
    assert said["gen_ai.usage.input_tokens"] == 1_200
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert said["gen_ai.provider.name"] == "openai"
    assert attributes_of(root.attributes)["shipworthy.charged_nano"] == 960_000
    remote, local = root.flags & 0x200, call.flags & 0x200
    assert remote
    assert not local


def test_rows_that_are_not_sampled_stay_here(receiver):
    traces = Traces(receiver.url, "test", lambda said: None)
    traces.took(row(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"))
    traces.took(row(traceparent=""))
    traces.close()
    assert len({span.trace_id for span in receiver.spans()}) == 1
    assert traces.dropped == 0


def test_close_sends_what_waits(receiver):
    traces = Traces(receiver.url, "test", lambda said: None)
    rows = [row() for _ in range(100)]
    for each in rows:
        traces.took(each)
    began = time.monotonic()
    traces.close()
    assert time.monotonic() - began < 2.5
    ids = {attributes_of(span.attributes).get("shipworthy.exchange_id") for span in receiver.spans()} - {None}
    assert len(ids) + traces.dropped == 100
    assert ids == {str(each.id) for each in rows}


def test_an_endpoint_that_is_down_costs_traces_only_and_is_told_once(caplog):
    """Taking a row never waits or raises; the queue keeps its bound; one observation, no lines of the exporter's own."""
    heard: list[Observation] = []
    traces = Traces(f"http://127.0.0.1:{closed_port()}", "test", heard.append)
    failed = row(outcome=Outcome.FAILED)
    slowest = 0.0
    with caplog.at_level(logging.DEBUG):
        for _ in range(ROWS_MAX * 3):
            began = time.perf_counter()
            traces.took(failed)
            slowest = max(slowest, time.perf_counter() - began)
        assert len(traces._rows) <= ROWS_MAX
        assert until(lambda: heard)
    assert slowest < 0.5
    assert traces.dropped >= ROWS_MAX
    (told,) = heard
    assert isinstance(told, TelemetryDegraded)
    assert told.sink == "traces"
    assert "refused" in told.reason or "Failed to export" in told.reason
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    began = time.monotonic()
    traces.close()
    assert time.monotonic() - began < 3.0
    assert traces.dropped == ROWS_MAX * 3
    assert sum(said.dropped for said in heard) == traces.dropped


def test_an_endpoint_that_hangs_does_not_hold_up_the_end(receiver):
    heard: list[Observation] = []
    receiver.hold.clear()
    traces = Traces(receiver.url, "test", heard.append)
    for _ in range(50):
        traces.took(row())
    time.sleep(0.5)
    began = time.monotonic()
    traces.close()
    assert time.monotonic() - began < 3.0
    assert traces.dropped >= 50 - spans.BATCH_ROWS_MAX
    receiver.hold.set()
    traces._thread.join(15)
    assert not traces._thread.is_alive()


def test_an_endpoint_that_refuses_is_told_with_its_status(receiver):
    heard: list[TelemetryDegraded] = []
    receiver.status = 404
    traces = Traces(receiver.url, "test", heard.append)
    traces.took(row())
    assert until(lambda: heard)
    assert "404" in heard[0].reason
    receiver.status = 200
    traces.took(row())
    assert until(lambda: receiver.received)
    traces.close()
    assert traces.dropped == 1


def test_a_row_that_cannot_be_told_costs_its_batch_not_the_thread(receiver, monkeypatch):
    heard: list[TelemetryDegraded] = []
    real = spans.trace_of

    def picky(one: Any) -> Any:
        if one.session == "cursed":
            raise ValueError("no such row")
        return real(one)

    monkeypatch.setattr(spans, "trace_of", picky)
    traces = Traces(receiver.url, "test", heard.append)
    traces.took(row(session="cursed"))
    assert until(lambda: heard)
    assert heard[0].reason == "ValueError: no such row"
    traces.took(row())
    assert until(lambda: receiver.received)
    traces.close()


def test_served_exchanges_are_held_to_a_rate_and_failures_are_not(receiver):
    traces = Traces(receiver.url, "test", lambda said: None)
    receiver.hold.clear()
    for _ in range(ROWS_MAX // 2 + 300):
        traces.took(row())
    assert traces.dropped > 100
    before = traces.dropped
    for _ in range(100):
        traces.took(row(outcome=Outcome.FAILED))
    assert traces.dropped == before
    receiver.hold.set()
    traces.close(15)
    failed = [span for span in receiver.spans() if span.name == "exchange support" and span.status.code == 2]
    assert len(failed) == 100


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp", "https://c/otlp/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_the_endpoint_is_the_collectors_base(said, meant):
    assert traces_url(said) == meant
