"""Traces over OTLP/HTTP by opentelemetry's SDK. Imported only when ``Traces`` is constructed: it loads opentelemetry."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shipworthy import __version__
from shipworthy.adapters.telemetry.gen_ai import NAMES, Kind, Span, Trace

EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.INTERNAL: SpanKind.INTERNAL, Kind.CLIENT: SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_ERROR = Status(StatusCode.ERROR)


class OtlpSender:
    """One endpoint. Headers, certificates and compression come from the usual OTEL_EXPORTER_OTLP_* variables."""

    def __init__(self, url: str, environment: str, process_id: str, timeout_s: float) -> None:
        who = {"service.name": "shipworthy", "service.version": __version__, "deployment.environment.name": environment}
        self._resource = Resource.create(who | ({"service.instance.id": process_id} if process_id else {}))
        self._scope = InstrumentationScope("shipworthy", __version__, attributes={"shipworthy.names": NAMES})
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=timeout_s)
        self._heard = Heard()
        logging.getLogger(EXPORTER_LOG).addFilter(self._heard)

    def send(self, traces: Sequence[Trace]) -> str:
        """Blocks for at most the timeout. Says why the traces did not arrive, "" when they did."""
        result = self._exporter.export([span for trace in traces for span in self._spans(trace)])
        return "" if result is SpanExportResult.SUCCESS else self._heard.last or "the exporter did not say why"

    def close(self) -> None:
        """Ends a wait between two tries; the next ``send`` fails."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        logging.getLogger(EXPORTER_LOG).removeFilter(self._heard)

    def _spans(self, trace: Trace) -> list[ReadableSpan]:
        return [self._span(trace.trace_id, span, is_root=place == 0) for place, span in enumerate(trace.spans)]

    def _span(self, trace_id: int, span: Span, *, is_root: bool) -> ReadableSpan:
        parent = SpanContext(trace_id, span.parent_id, is_remote=is_root) if span.parent_id else None
        return ReadableSpan(
            span.name,
            context=SpanContext(trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=_ERROR if span.failed else _UNSET,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


class Heard(logging.Filter):
    """Keeps what the exporter logs as the reason, and keeps it out of the log: it would say it for every batch."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage()
        return False
