"""Finished rows as OTLP traces, made and sent by a thread of its own.

Nothing is traced while a request runs: its row holds every time already. So a request pays for one append, and an endpoint
that is slow, down or lying costs traces, never requests: the queue is bounded, what doesn't fit is dropped, counted, and
told at most once a minute. The exporter reads the usual OTEL_EXPORTER_OTLP_* variables for headers, certificates and
compression; the endpoint is the manifest's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from shipworthy import __version__
from shipworthy.adapters.telemetry.bucket import Bucket
from shipworthy.adapters.telemetry.gen_ai import NAMES, Kind, Trace, is_sampled, trace_of
from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.observation import TelemetryDegraded
from shipworthy.model.op import Observe, SystemClock

ROWS_MAX = 1_000
"""Rows that wait to be sent."""
BATCH_ROWS_MAX = 16
TRACES_PER_S_MAX = 100.0
"""Of exchanges that were served, from each process: a trace costs half a millisecond of the processor that requests need too."""
LINGER_S = 0.25
EXPORT_S_MAX = 5.0
FLUSH_S_MAX = 2.0
TELL_EVERY_S = 60.0
EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

Send = Callable[[Sequence[Trace]], str]
"""Sends traces; says why they did not arrive, "" when they did."""


class Traces:
    """Takes finished rows. Constructing it imports opentelemetry and asks nothing of the endpoint yet."""

    def __init__(self, endpoint: str, environment: str, observe: Observe, *, process_id: str = "") -> None:
        self.dropped = 0
        self._observe = observe
        self._rows: deque[Row] = deque()
        self._served = Bucket(TRACES_PER_S_MAX, ROWS_MAX // 2, SystemClock())
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._told_s = -TELL_EVERY_S
        self._told_dropped = 0
        self._send, self._shutdown = otlp_sender(endpoint, environment, process_id)
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def took(self, row: Row) -> None:
        """Takes a finished row, unless its sender's trace is not sampled. Never waits, never raises.

        What went wrong goes first: only exchanges that were served are held to a rate.
        """
        if not is_sampled(row.traceparent):
            return
        full = len(self._rows) >= ROWS_MAX or self._closing.is_set()
        if full or (row.outcome is Outcome.SERVED and not self._served.take()):
            self.dropped += 1
            return
        self._rows.append(row)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, within_s: float = FLUSH_S_MAX) -> None:
        """Sends what waits, for at most ``within_s``; the rest is dropped."""
        self._closing.set()
        self._wake.set()
        self._thread.join(within_s)
        self.dropped += len(self._rows)
        self._rows.clear()
        if self.dropped > self._told_dropped:
            self._tell("the process ends", now=True)
        self._shutdown()

    def _run(self) -> None:
        while not self._closing.is_set() or self._rows:
            self._wake.wait()
            self._closing.wait(LINGER_S)
            self._wake.clear()
            while self._rows:
                self._export(self._batch())

    def _batch(self) -> list[Row]:
        batch: list[Row] = []
        while self._rows and len(batch) < BATCH_ROWS_MAX:
            try:
                batch.append(self._rows.popleft())
            except IndexError:  # `close` has given up on them
                break
        return batch

    def _export(self, rows: Sequence[Row]) -> None:
        try:
            failed = self._send([trace_of(row) for row in rows])
        except Exception as reason:  # noqa: BLE001 - the thread outlives whatever one batch does to it
            failed = f"{type(reason).__name__}: {reason}"
        if failed:
            self.dropped += len(rows)
        if self.dropped > self._told_dropped:
            self._tell(failed or f"more came than {TRACES_PER_S_MAX:.0f} a second, or than {ROWS_MAX} that may wait")

    def _tell(self, reason: str, *, now: bool = False) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < TELL_EVERY_S and not now:
            return
        lost, self._told_dropped, self._told_s = self.dropped - self._told_dropped, self.dropped, now_s
        self._observe(TelemetryDegraded("traces", reason, lost))


def otlp_sender(endpoint: str, environment: str, process_id: str) -> tuple[Send, Callable[[], None]]:
    """How traces are sent to ``endpoint`` by OTLP over HTTP, and how that is ended. Imports opentelemetry, ~0.2 s."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    who = {"service.name": "shipworthy", "service.version": __version__, "deployment.environment.name": environment}
    resource = Resource.create(who | ({"service.instance.id": process_id} if process_id else {}))
    scope = InstrumentationScope("shipworthy", __version__, attributes={"shipworthy.names": NAMES})
    kinds = {Kind.SERVER: SpanKind.SERVER, Kind.INTERNAL: SpanKind.INTERNAL, Kind.CLIENT: SpanKind.CLIENT}
    sampled, unset, error = TraceFlags(TraceFlags.SAMPLED), Status(StatusCode.UNSET), Status(StatusCode.ERROR)
    exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=EXPORT_S_MAX)
    heard = Heard()
    logging.getLogger(EXPORTER_LOG).addFilter(heard)

    def spans(trace: Trace) -> list[ReadableSpan]:
        own = {span.span_id for span in trace.spans}
        return [
            ReadableSpan(
                span.name,
                context=SpanContext(trace.trace_id, span.span_id, is_remote=False, trace_flags=sampled),
                parent=SpanContext(trace.trace_id, span.parent_id, is_remote=span.parent_id not in own)
                if span.parent_id
                else None,
                resource=resource,
                attributes=span.attributes,
                kind=kinds[span.kind],
                status=error if span.failed else unset,
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=scope,
            )
            for span in trace.spans
        ]

    def send(traces: Sequence[Trace]) -> str:
        result = exporter.export([span for trace in traces for span in spans(trace)])
        return "" if result is SpanExportResult.SUCCESS else heard.last or "the exporter did not say why"

    def shutdown() -> None:
        exporter.shutdown()  # type: ignore[no-untyped-call]
        logging.getLogger(EXPORTER_LOG).removeFilter(heard)

    return send, shutdown


class Heard(logging.Filter):
    """Keeps what the exporter logs as the reason, and keeps it out of the log: it would say it for every batch."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage()
        return False


def traces_url(endpoint: str) -> str:
    """The manifest names the collector, as OTEL_EXPORTER_OTLP_ENDPOINT does; traces have a path of their own there."""
    return endpoint if endpoint.rstrip("/").endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
