"""metrics-and-logs.md: metrics, log lines and traces, by name."""

from __future__ import annotations

from typing import Any, get_args

from markdown import code, first_line, paragraphs, table
from prometheus_client import CollectorRegistry

from shipworthy.adapters.telemetry import families
from shipworthy.adapters.telemetry.gen_ai import NAMES, SPANS_MAX
from shipworthy.adapters.telemetry.levels import LEVELS
from shipworthy.adapters.telemetry.line_writer import QUEUE_BYTES_MAX
from shipworthy.adapters.telemetry.logs import (
    FIELD_CHARS_MAX,
    LINE_BYTES_MAX,
    STRANGERS_BURST,
    STRANGERS_PER_S,
    event_name,
)
from shipworthy.adapters.telemetry.metrics import WRITE_EVERY_S
from shipworthy.adapters.telemetry.spans import ROWS_MAX, TRACES_PER_S_MAX
from shipworthy.model.observation import Observation

LOUDER = {
    "Reloaded": "error when the manifest was refused",
    "AlertPosted": "warning when it is tried again, error when it is given up",
    "Ended": "warning when the outcome is `failed` or `cut`",
    "Lifecycle": "warning when something died or was refused",
    "CertificateShown": "warning when it ends within 14 days, error when it has ended",
}


class Shelf(CollectorRegistry):
    """A registry that remembers what was put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[Any] = []

    def register(self, collector: Any) -> None:
        self.metrics.append(collector)


def metrics() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and help of every metric."""
    shelf = Shelf()
    families.Families(shelf)
    found = []
    for metric in shelf.metrics:
        [described] = metric.describe()
        total = "_total" if described.type == "counter" else ""
        found.append((described.name + total, described.type, metric._labelnames, described.documentation))
    return found


def page() -> str:
    return paragraphs(_head(), _metrics(), _logs(), _traces())


def _head() -> str:
    return """
# Metrics and logs

The code says each thing once, as an observation. The log, the metrics and the traces are made from observations and rows; none
of them carries a secret, a body, or what was said. All of them are bounded, and none of them can fail or slow a request: what
does not fit is dropped, counted, and told.
"""


def _metrics() -> str:
    rows = [(code(name), kind, ", ".join(map(code, labels)), meaning) for name, kind, labels, meaning in metrics()]
    return paragraphs(
        "## Metrics",
        "`telemetry: {prometheus: {host: 127.0.0.1, port: 9090}}` serves `/metrics` on a bind of its own: one exposition for all processes "
        "of the server, dead workers' counters included. Money is never read off metrics: `shipworthy_charged_usd_total` is a float, for "
        "dashboards; bills come from charge lines. What ended is counted in memory and written every "
        f"{WRITE_EVERY_S:g} s: a worker that is killed loses the last of it here, and nothing of the record.",
        table(("metric", "type", "labels", "meaning"), rows),
        f"At most {families.EXCHANGE_SETS_MAX:,} label sets for counters of exchanges, {families.HISTOGRAM_SETS_MAX} for histograms and others; "
        f"what is new beyond that is counted under `{families.OTHER}`. A label is at most {families.LABEL_BYTES_MAX} bytes.",
    )


def _logs() -> str:
    rows = []
    for kind in sorted(get_args(Observation), key=lambda each: each.__name__):
        level = LEVELS[kind].name.lower()
        louder = f"; {LOUDER[kind.__name__]}" if kind.__name__ in LOUDER else ""
        fields = ", ".join(code(name) for name in kind.__struct_fields__)
        rows.append((code(event_name(kind)), level + louder, first_line(kind.__doc__), fields))
    return paragraphs(
        "## Log",
        "Standard error, one JSON object a line, ASCII only (short columns where a person sits at a terminal). Every line has `ts` (RFC 3339, "
        "UTC), `level`, `process` and `event`; a field of the same name is written as `EVENT_NAME`.",
        '```json\n{"ts":"2026-11-21T21:42:07.123456Z","level":"info","process":"worker","event":"refused","exchange_id":"019a…",'
        '"code":"identify.expired","detail":"…","peer":"10.0.0.7:51234"}\n```',
        table(("event", "level", "meaning", "fields"), rows),
        f"Three more come from the log itself: `library` (what a library or the interpreter said at warning or above), `log_suppressed` and "
        f"`log_dropped`. `refused` and `library` are bounded to {STRANGERS_PER_S:g} lines a second after a burst of {STRANGERS_BURST}, because strangers "
        f"can cause them; how many were left out is said once a second. A line is at most {LINE_BYTES_MAX:,} bytes, a field {FIELD_CHARS_MAX:,} "
        f"characters, the queue {QUEUE_BYTES_MAX >> 20} MiB. What looks like a credential is blanked in every text.",
    )


def _traces() -> str:
    rows = (
        (
            "`exchange USE_CASE`",
            "server",
            "the whole exchange: `shipworthy.*` says tenant, use case, outcome, code, cost, model, data class",
        ),
        ("a stage's name", "internal", "each stage, side by side, with the code if it refused"),
        (
            "`chat MODEL`, `embeddings MODEL`",
            "client",
            "each attempt, with `gen_ai.*`: provider, model, usage, finish reasons, first token",
        ),
    )
    return paragraphs(
        "## Traces",
        "`telemetry: {otlp: {endpoint: {env: OTEL_EXPORTER_OTLP_ENDPOINT}}}` sends one trace an exchange by OTLP over HTTP, made from the row when "
        "it is finished. The trace id is the caller's (`traceparent`), else the exchange's own id. A caller that did not sample gets none.",
        table(("span", "kind", "what it holds"), rows),
        f"Names follow OpenTelemetry's GenAI conventions, which are not stable: these are `{NAMES}`. No content, ever. At most {SPANS_MAX} spans a "
        f"trace; {TRACES_PER_S_MAX:g} traces of served exchanges a second from each process (what went wrong always goes first); {ROWS_MAX:,} rows may "
        "wait. The exporter also reads the usual `OTEL_EXPORTER_OTLP_*` variables for headers and certificates.",
    )
