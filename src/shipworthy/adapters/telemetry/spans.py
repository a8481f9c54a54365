"""Finished rows as OTLP traces, made and sent by a thread of its own.

Nothing is traced while a request runs: its row holds every time already. So a request pays for one append, and an endpoint
that is slow, down or lying costs traces, never requests: the queue is bounded, what doesn't fit is dropped, counted, and
told at most once a minute. The exporter reads the usual OTEL_EXPORTER_OTLP_* variables for headers, certificates and
compression; the endpoint is the manifest's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from shipworthy.adapters.telemetry.bucket import Bucket
from shipworthy.adapters.telemetry.gen_ai import is_sampled, trace_of
from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.observation import TelemetryDegraded
from shipworthy.model.op import Observe, SystemClock

ROWS_MAX = 1_000
"""Rows that wait to be sent."""
BATCH_ROWS_MAX = 16
TRACES_PER_S_MAX = 100.0
"""Of exchanges that were served, from each process: a trace costs half a millisecond of what requests need too."""
LINGER_S = 0.25
EXPORT_S_MAX = 5.0
FLUSH_S_MAX = 2.0
TELL_EVERY_S = 60.0


class Traces:
    """Takes finished rows. Constructing it imports opentelemetry and asks nothing of the endpoint yet."""

    def __init__(self, endpoint: str, environment: str, observe: Observe, *, process_id: str = "") -> None:
        self.dropped = 0
        self._observe = observe
        self._rows: deque[Row] = deque()
        self._served = Bucket(TRACES_PER_S_MAX, ROWS_MAX // 2, SystemClock())
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._in_hand = 0
        self._given_up = False
        self._told_s = -TELL_EVERY_S
        self._told_dropped = 0
        from shipworthy.adapters.telemetry.otlp import OtlpSender  # ~0.3 s: opentelemetry, protobuf, requests

        self._sender = OtlpSender(traces_url(endpoint), environment, process_id, EXPORT_S_MAX)
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
        self._given_up = True
        self.dropped += len(self._rows) + self._in_hand
        self._rows.clear()
        if self.dropped > self._told_dropped:
            self._tell("the process ends", now=True)
        self._sender.close()

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
        self._in_hand = len(rows)
        try:
            failed = self._sender.send([trace_of(row) for row in rows])
        except Exception as reason:  # noqa: BLE001 - the thread outlives whatever one batch does to it
            failed = f"{type(reason).__name__}: {reason}"
        self._in_hand = 0
        if self._given_up:
            return
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


def traces_url(endpoint: str) -> str:
    """The manifest names the collector, as OTEL_EXPORTER_OTLP_ENDPOINT does; traces have a path of their own there."""
    return endpoint if endpoint.rstrip("/").endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
