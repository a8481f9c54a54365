"""What one process of ours says, and to whom: its log, its share of the metrics, and traces."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from shipworthy.adapters.telemetry.fanout import fan
from shipworthy.adapters.telemetry.logs import capture_stdlib, console_log
from shipworthy.adapters.telemetry.metrics import Metrics
from shipworthy.launch import Launch
from shipworthy.manifest.load import Loaded
from shipworthy.model.errors import StartRefused
from shipworthy.model.observation import Lifecycle
from shipworthy.ports import Entry

if TYPE_CHECKING:
    from shipworthy.adapters.telemetry.spans import Traces


class Voice:
    """``observe`` for everyone in this process; from here on libraries' warnings go into the same log."""

    def __init__(self, launch: Launch) -> None:
        log = console_log(launch.name)
        capture_stdlib(launch.name, log)
        self.metrics = Metrics(Path(launch.metrics_path), launch.process_id)
        self.observe = fan(log, self.metrics)
        self.metrics.count_dropped("log", lambda: log.dropped)
        self.metrics.count_dropped("sinks", lambda: sum(self.observe.failures))
        self._launch = launch
        self._traces: Traces | None = None

    def trace(self, loaded: Loaded) -> None:
        """Sends finished rows as traces where the manifest names a place for them; the library is loaded only then."""
        endpoint = loaded.deployment.telemetry.otlp_endpoint
        if endpoint:
            from shipworthy.adapters.telemetry.spans import Traces

            environment = loaded.snapshot.environment
            self._traces = Traces(endpoint, environment, self.observe, process_id=self._launch.process_id)

    def took(self, entry: Entry) -> None:
        if self._traces is not None:
            self._traces.took(entry.row)

    def close(self) -> None:
        """Writes and sends what is left, for at most two seconds."""
        self.metrics.write_through()
        if self._traces is not None:
            self._traces.close()


def run(name: str, process: Coroutine[None, None, None]) -> None:
    """Runs a process to its end. One that is refused its start says so in the log; the supervisor sees the status."""
    try:
        uvloop.run(process)
    except StartRefused as refused:
        console_log(name)(Lifecycle(name, "refused", str(refused)))
        sys.exit(1)
