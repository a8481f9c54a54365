"""The metrics by name, and the bound on their label sets. Imported only by ``Metrics``: it loads prometheus-client.

Names and labels are a contract with the firm's dashboards and alerts. Every label set costs memory in each process and in
Prometheus, so each metric has a most of them: what is new beyond it is counted as ``other``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from shipworthy.adapters.telemetry.redaction import redact

EXCHANGE_SETS_MAX = 1_000
HISTOGRAM_SETS_MAX = 200
SETS_MAX = 200
LABEL_BYTES_MAX = 64
OTHER = "other"

DURATION_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 21, 34, 60, 120, 300)
FIRST_TOKEN_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.2, 1.8, 3, 5, 10, 20, 30)
LOOP_LAG_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 5)

M = TypeVar("M", bound=MetricWrapperBase)


class SpreadHistogram(Histogram):
    """A histogram that takes many values at once, which were told apart by bucket before."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """``counts`` by bucket, each value in one of them, the last one for those above every bound."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Family(Generic[M]):
    """One metric and its children by their label values; at most ``sets_max`` of them, and one for all others."""

    __slots__ = ("_children", "_labels", "_metric", "_sets_max")

    def __init__(self, metric: M, labels: Sequence[str] = (), sets_max: int = SETS_MAX) -> None:
        self._metric = metric
        self._labels = len(labels)
        self._sets_max = sets_max
        self._children: dict[tuple[str, ...], M] = {} if labels else {(): metric}

    def child(self, *values: str) -> M:
        found = self._children.get(values)
        return found if found is not None else self._new(values)

    def _new(self, values: tuple[str, ...]) -> M:
        assert len(values) == self._labels
        if len(self._children) >= self._sets_max:
            return self._metric.labels(*(OTHER,) * self._labels)
        child = self._metric.labels(*(fitting(value) for value in values))
        self._children[values] = child
        return child


def fitting(value: str) -> str:
    """A label value as it may be kept: redacted, and short also where it is escaped."""
    value = redact(value[: 8 * LABEL_BYTES_MAX])[:LABEL_BYTES_MAX]
    while len(json.dumps(value)) - 2 > LABEL_BYTES_MAX:
        value = value[:-1]
    return value


class Families:
    """Every metric that there is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        who = ("tenant", "use_case", "model")
        self.exchanges = self._counter("exchanges", "Ended exchanges.", (*who, "outcome", "code"), EXCHANGE_SETS_MAX)
        self.tokens = self._counter(
            "tokens", "Tokens that providers reported or we counted.", (*who, "kind"), EXCHANGE_SETS_MAX
        )
        self.charged = self._counter(
            "charged_usd", "Charged, for dashboards; bills come from the record.", who, EXCHANGE_SETS_MAX
        )
        self.overrun = self._counter("overrun_usd", "Charged beyond what was held.", who)
        self.refused = self._counter("refused_before_identity", "Refusals of unknown senders.", ("code",))
        self.attempt_failures = self._counter(
            "provider_attempt_failures", "Failed attempts.", ("provider", "model", "kind"), EXCHANGE_SETS_MAX
        )
        self.reloads = self._counter("reloads", "Manifests put in force, or refused.", ("accepted",))
        self.store_degraded = self._counter("store_degraded", "Times that the store did not answer.", ("where",))
        self.issuer_degraded = self._counter(
            "issuer_degraded", "Times that an issuer's keys could not be fetched.", ("issuer",)
        )
        self.dropped = self._counter("telemetry_dropped", "Lines and traces that a sink lost.", ("sink",))
        self.lifecycle = self._counter("process_events", "Processes that came up, drained, died.", ("state",))
        self.certificate_ends = self._gauge(
            "certificate_ends_timestamp_seconds", "When the certificate shown there ends.", ("bind",), "livemostrecent"
        )
        self.swept = self._counter("swept_holds", "Holds of dead workers that were settled.", ())
        self.budget_alerts = self._counter(
            "budget_alerts", "Thresholds of budgets that were passed.", ("tenant", "budget", "threshold")
        )
        self.alert_posts = self._counter("alert_posts", "Tries to post an alert, by how they ended.", ("delivery",))
        self.runaways = self._counter(
            "runaway_pauses",
            "Runaways found; stopped no: the tenant had its fill of pauses.",
            ("tenant", "kind", "stopped"),
        )
        self.admin_acts = self._counter("admin_acts", "Administrative acts.", ("act",))
        self.failed = self._counter("unforeseen_failures", "Failures that the code did not foresee.", ("where",))
        self.duration = self._histogram("exchange_duration_seconds", "From arrival to end.", who[1:], DURATION_S)
        self.first_token = self._histogram(
            "first_token_seconds", "From arrival to the first token.", who[1:], FIRST_TOKEN_S
        )
        self.loop_lag = self._histogram(
            "loop_lag_seconds", "How late the event loop was, at moments 20 ms apart.", (), LOOP_LAG_S
        )
        self.in_flight = self._gauge("in_flight", "Requests in hand.", (), "livesum")
        self.circuit = self._gauge(
            "circuit_state", "0 closed, 1 half-open, 2 open; the worst.", ("provider", "model"), "livemax"
        )

    def _counter(self, name: str, help: str, labels: Sequence[str], sets_max: int = SETS_MAX) -> Family[Counter]:
        metric = Counter(f"shipworthy_{name}_total", help, labels, registry=self._registry)
        return Family(metric, labels, sets_max)

    def _histogram(
        self, name: str, help: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Family[SpreadHistogram]:
        metric = SpreadHistogram(f"shipworthy_{name}", help, labels, buckets=buckets, registry=self._registry)
        return Family(metric, labels, HISTOGRAM_SETS_MAX)

    def _gauge(self, name: str, help: str, labels: Sequence[str], mode: str) -> Family[Gauge]:
        metric = Gauge(f"shipworthy_{name}", help, labels, multiprocess_mode=mode, registry=self._registry)  # type: ignore[arg-type]
        return Family(metric, labels, SETS_MAX)
