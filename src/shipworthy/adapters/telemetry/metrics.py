"""Observations as Prometheus metrics of several processes in one directory.

Why does this file write to ``os.environ``, which is otherwise read in manifest/load and touched nowhere? prometheus-client
opens its files in the directory that PROMETHEUS_MULTIPROC_DIR names, each time it opens one, and chooses between one process
and several when it is imported. There is no argument for either. So ``Metrics`` sets the variable before the first import,
and names the value class itself, so that an import that came earlier does no harm. Nothing is imported until then.

Why are files made at full size at once? They are mapped into memory: on a full disk the first write to a page that was never
allocated kills the process by SIGBUS. A full disk may refuse the start here; it never ends a request.

Ended exchanges, which come with every request, are counted in memory first (``tallies``) and written by the tick of
``watch_loop``, or by the next one that ends; ``kill -9`` may lose those of the last WRITE_EVERY_S. Everything else is
written at once.

Money is never read off metrics: the charged-USD counter is a float, for dashboards. Bills come from charge lines.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shipworthy.model.errors import StartRefused
from shipworthy.model.observation import (
    AdminActed,
    AlertPosted,
    AttemptFailed,
    BudgetAlert,
    CertificateShown,
    CircuitChanged,
    Ended,
    Failed,
    IssuerDegraded,
    Lifecycle,
    Observation,
    Refused,
    Reloaded,
    RunawayPaused,
    StoreDegraded,
    Swept,
    TelemetryDegraded,
)

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from shipworthy.adapters.telemetry.families import Families
    from shipworthy.adapters.telemetry.tallies import Tallies

WRITE_EVERY_S = 0.25
CIRCUIT_STATES = {"closed": 0, "half-open": 1, "half_open": 1, "open": 2}


class Metrics:
    """A sink of observations. One a process: the newest owns prometheus-client's value class.

    ``process_id`` is unique among all processes of the server, dead ones too, and holds no underscore; ``forget`` takes it.
    """

    def __init__(self, directory: Path, process_id: str) -> None:
        registry = open_files(directory, process_id)
        from shipworthy.adapters.telemetry.families import Families
        from shipworthy.adapters.telemetry.tallies import Tallies

        self._families: Families = Families(registry)
        self._tallies: Tallies = Tallies(self._families)
        self._write_s = 0.0  # when the tallies are to be written again
        weakref.finalize(self, self._tallies.write)  # at the latest when the process ends
        self._losses: list[tuple[str, Callable[[], int], int]] = []

    def __call__(self, observation: Observation) -> None:
        f = self._families
        match observation:
            case Ended():
                self._ended(observation)
            case Refused(code=code):
                f.refused.child(code).inc()
            case AttemptFailed(provider=provider, model=model, kind=kind):
                f.attempt_failures.child(provider, model, kind).inc()
            case CircuitChanged(provider=provider, model=model, state=state):
                f.circuit.child(provider, model).set(CIRCUIT_STATES.get(state, 2))
            case Reloaded(accepted=accepted):
                f.reloads.child("yes" if accepted else "no").inc()
            case StoreDegraded(where=where):
                f.store_degraded.child(where).inc()
            case IssuerDegraded(issuer=issuer):
                f.issuer_degraded.child(issuer).inc()
            case TelemetryDegraded(sink=sink, dropped=dropped):
                f.dropped.child(sink).inc(dropped)
            case Lifecycle(state=state):
                f.lifecycle.child(state).inc()
            case CertificateShown(bind=bind, ends_unix_s=ends):
                f.certificate_ends.child(bind).set(ends)
            case Swept(holds=holds):
                f.swept.child().inc(holds)
            case BudgetAlert(tenant=tenant, budget=key, threshold=threshold):
                f.budget_alerts.child(tenant, "end_user" if key.startswith("end_user=") else key, threshold).inc()
            case AlertPosted(delivery=delivery):
                f.alert_posts.child(delivery).inc()
            case RunawayPaused(tenant=tenant, kind=kind, stopped=stopped):
                f.runaways.child(tenant, kind, "yes" if stopped else "no").inc()
            case AdminActed(act=act):
                f.admin_acts.child(act).inc()
            case Failed(where=where):
                f.failed.child(where).inc()

    def in_flight(self, requests: int) -> None:
        """How many requests this process has in hand."""
        self._families.in_flight.child().set(requests)

    def count_dropped(self, sink: str, read: Callable[[], int]) -> None:
        """From now on ``watch_loop`` counts what ``sink`` lost, as ``read`` says."""
        self._losses.append((sink, read, 0))

    async def watch_loop(self) -> None:
        """Measures how late the event loop is; writes that and what ended, four times a second, until it is cancelled."""
        from shipworthy.adapters.telemetry.loop_watch import LoopWatch

        await LoopWatch(self._families.loop_lag.child()).run(WRITE_EVERY_S, self._tick)

    def _tick(self) -> None:
        self.look_at_losses()
        self.write_through()

    def look_at_losses(self) -> None:
        for place, (sink, read, told) in enumerate(self._losses):
            if (lost := read()) > told:
                self._families.dropped.child(sink).inc(lost - told)
                self._losses[place] = (sink, read, lost)

    def _ended(self, ended: Ended) -> None:
        self._tallies.add(ended)
        if time.monotonic() >= self._write_s:
            self.write_through()

    def write_through(self) -> None:
        """Writes what ended since it was last written. On the event loop's thread, where exchanges end, or after it."""
        self._write_s = time.monotonic() + WRITE_EVERY_S
        self._tallies.write()


def open_files(directory: Path, process_id: str) -> CollectorRegistry:
    """Makes this process's files at full size and points prometheus-client at them. Raises StartRefused."""
    assert process_id and "_" not in process_id, f"a process id without underscores is needed, not {process_id!r}"
    _allocate(directory, process_id)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    from prometheus_client import CollectorRegistry, values

    values.ValueClass = values.MultiProcessValue(lambda: process_id)  # type: ignore[no-untyped-call]
    return CollectorRegistry()


FILE_BYTES = {"counter": 3 << 20, "histogram": 3 << 20, "gauge_livesum": 1 << 16, "gauge_livemax": 1 << 18}
"""Room for every label set that families.py allows, so that no file ever grows; a test fills them."""


def _allocate(directory: Path, process_id: str) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for kind, size in FILE_BYTES.items():
            with open(directory / f"{kind}_{process_id}.db", "a+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as reason:
        needed = sum(FILE_BYTES.values()) >> 20
        raise StartRefused(
            "telemetry.metrics_space",
            f"the metrics of this process need {needed} MiB in {directory}: {reason.strerror or reason}",
            "free some space there, or point TMPDIR at a file system that has it",
        ) from reason


_scraping = threading.Lock()


def exposition(directory: Path) -> bytes:
    """What /metrics answers: every process's metrics added up, dead ones' counters too. Blocking: called in a thread."""
    from prometheus_client import CollectorRegistry, generate_latest

    from shipworthy.adapters.telemetry.merging import Merged

    registry = CollectorRegistry()
    with _scraping:
        registry.register(Merged(directory))
        return generate_latest(registry)


def forget(directory: Path, process_id: str) -> None:
    """A process is dead: its gauges go, its counters stay, in one file for all the dead. Blocking; for the control plane."""
    from shipworthy.adapters.telemetry.merging import bury

    with _scraping:
        bury(directory, process_id)
