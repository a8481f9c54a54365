"""What ended since metrics were last written, counted in plain Python: a write to a mapped file costs a microsecond, an
exchange touches ten of them, and a scrape sees none of the steps between. Imported only by ``Metrics``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter

from prometheus_client import Counter

from shipworthy.adapters.telemetry.families import DURATION_S, FIRST_TOKEN_S, Families, SpreadHistogram
from shipworthy.model.money import NANO_PER_USD
from shipworthy.model.observation import Ended

TALLIES_MAX = 64
"""Kinds of end that may wait: writing one takes tens of microseconds, and the event loop waits for all of them."""
WAITING_MAX = 256
"""Of one kind: counting them takes a millisecond."""

Kind = tuple[str, str, str, str, str]
"""Tenant, use case, model, outcome, code: the labels of the exchanges."""


class Spread:
    """Values by the bucket that they fall into: the first whose bound they don't exceed, the last one for all above."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, values: Sequence[float]) -> None:
        for place in map(bisect_left, repeat(self._bounds), values):
            self.counts[place] += 1
        self.total += sum(values)


class Tally:
    """All exchanges of one kind since the last writing; ``waiting`` are those that are not yet among its figures."""

    __slots__ = (
        "charged_nano",
        "durations",
        "exchanges",
        "first_tokens",
        "input_tokens",
        "output_tokens",
        "overrun_nano",
        "waiting",
    )

    def __init__(self) -> None:
        self.exchanges = self.input_tokens = self.output_tokens = self.charged_nano = self.overrun_nano = 0
        self.durations = Spread(DURATION_S)
        self.first_tokens = Spread(FIRST_TOKEN_S)
        self.waiting: list[Ended] = []

    def fold(self) -> None:
        """Counts those that wait: many at once, a fraction of what each would take by itself."""
        if not self.waiting:
            return
        inputs, outputs, charged, overruns, durations_ms, first_ms = zip(*map(_figures, self.waiting), strict=True)
        self.exchanges += len(self.waiting)
        self.input_tokens += sum(inputs)
        self.output_tokens += sum(outputs)
        self.charged_nano += sum(charged)
        self.overrun_nano += sum(overruns)
        self.durations.add([ms / 1_000 for ms in durations_ms])
        self.first_tokens.add([ms / 1_000 for ms in first_ms if ms])
        self.waiting.clear()


_figures = attrgetter("input_tokens", "output_tokens", "charged_nano", "overrun_nano", "duration_ms", "first_token_ms")


class Tallies:
    """Not locked: exchanges end, and are written, on the event loop."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._tallies: dict[Kind, Tally] = {}

    def add(self, ended: Ended) -> None:
        use_case = ended.use_case if not ended.code or named_by_us(ended) else "unknown"
        kind = (ended.tenant, use_case, ended.model, ended.outcome, ended.code)
        tally = self._tallies.get(kind)
        if tally is None:
            self._begin(kind, ended)
            return
        tally.waiting.append(ended)
        if len(tally.waiting) >= WAITING_MAX:
            tally.fold()

    def _begin(self, kind: Kind, ended: Ended) -> None:
        """New label sets, a millisecond each, are made here: one by one as they come, not all at once in ``write``."""
        if len(self._tallies) >= TALLIES_MAX:
            self.write()
        tally = self._tallies[kind] = Tally()
        tally.waiting.append(ended)
        tally.fold()
        counted(self._families, kind, tally)
        times(self._families, kind, tally)

    def write(self) -> None:
        """Adds everything that waits to the metrics' files."""
        waiting, self._tallies = self._tallies, {}
        for kind, tally in waiting.items():
            tally.fold()
            for counter, amount in counted(self._families, kind, tally):
                counter.inc(amount)
            for histogram, values in times(self._families, kind, tally):
                histogram.add(values.counts, values.total)


def counted(f: Families, kind: Kind, tally: Tally) -> list[tuple[Counter, float]]:
    """What of ``tally`` is not zero, each by its counter."""
    who = kind[:3]
    found: list[tuple[Counter, float]] = [(f.exchanges.child(*kind), tally.exchanges)]
    if tally.input_tokens:
        found.append((f.tokens.child(*who, "input"), tally.input_tokens))
    if tally.output_tokens:
        found.append((f.tokens.child(*who, "output"), tally.output_tokens))
    if tally.charged_nano:
        found.append((f.charged.child(*who), tally.charged_nano / NANO_PER_USD))
    if tally.overrun_nano:
        found.append((f.overrun.child(*who), tally.overrun_nano / NANO_PER_USD))
    return found


def times(f: Families, kind: Kind, tally: Tally) -> list[tuple[SpreadHistogram, Spread]]:
    """The times of ``tally``, each by its histogram."""
    _, use_case, model, _, _ = kind
    found: list[tuple[SpreadHistogram, Spread]] = []
    if model:
        found.append((f.duration.child(use_case, model), tally.durations))
    if any(tally.first_tokens.counts):
        found.append((f.first_token.child(use_case, model), tally.first_tokens))
    return found


def named_by_us(ended: Ended) -> bool:
    """Whether ``use_case`` stands in the manifest. Until policy has looked it up it is a text of the client's choice."""
    return not ended.code.startswith(("identify.", "decode.")) and ended.code not in UNDECIDED


UNDECIDED = ("authorize.unknown_use_case", "authorize.no_role")
"""What is answered also to whoever names a use case that there is not."""
