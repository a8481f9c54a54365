"""One ``Observe`` out of several sinks: what one of them does wrong reaches neither the caller nor the others."""

from __future__ import annotations

from collections.abc import Callable

from shipworthy.model.observation import Failed, Observation
from shipworthy.model.op import Observe


class Fan:
    """Gives each observation to every sink. ``failures`` counts, by the sink's place; the first of each is told once."""

    def __init__(self, sinks: tuple[Observe, ...]) -> None:
        self._sinks = sinks
        self.failures = [0] * len(sinks)

    def __call__(self, observation: Observation) -> None:
        for place, sink in enumerate(self._sinks):
            try:
                sink(observation)
            except Exception as reason:  # noqa: BLE001 - telemetry never fails a request
                self._failed(place, reason)

    def _failed(self, place: int, reason: Exception) -> None:
        self.failures[place] += 1
        if self.failures[place] > 1:
            return
        said = Failed.of(f"telemetry sink {name_of(self._sinks[place])}", reason)
        for other, sink in enumerate(self._sinks):
            if other != place and not self.failures[other]:
                try:
                    sink(said)
                except Exception:  # noqa: BLE001 - counted; it was told with its own first failure, or never will be
                    self.failures[other] += 1


def fan(*sinks: Observe) -> Fan:
    """An Observe that gives to all of ``sinks``, in order."""
    return Fan(sinks)


def name_of(sink: Callable[[Observation], None]) -> str:
    return getattr(sink, "__name__", type(sink).__name__)
