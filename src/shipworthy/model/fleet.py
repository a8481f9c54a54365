"""What one worker has learned of the models it calls: circuits, requests in flight, first-token times, output lengths.

Outlives reloads: keyed by model and provider name. Pure state with the time handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from shipworthy.model.circuit import SECOND_NS, Circuit, RetryBudget

if TYPE_CHECKING:
    from shipworthy.model.route import Model

HALF_LIFE_NS = 60 * SECOND_NS
BUCKETS = 64
BUCKET_RATIO = 1.25
FIRST_BUCKET_MS = 1.0
HALVINGS_MAX = 256
"""After so many half-lives weights are scaled down: far from what a float cannot hold."""
MEAN_WEIGHT = 0.1


class DecayedMedian:
    """The median of a stream of milliseconds in which a sample's weight halves every 60 s.

    64 buckets, each 1.25 times the one before, from 1 ms to 1.6 million: the answer is within 12 %. Instead of all that is
    old fading, what is new weighs more; all is scaled down before that gets out of hand.
    """

    __slots__ = ("_since_ns", "_weights")

    def __init__(self) -> None:
        self._weights = [0.0] * BUCKETS
        self._since_ns = 0  # when a sample weighed 1

    def add(self, value_ms: float, now_ns: int) -> None:
        if not self._since_ns:
            self._since_ns = now_ns
        halvings = max(0, now_ns - self._since_ns) / HALF_LIFE_NS
        if halvings > HALVINGS_MAX:
            self._weights = [weight * 0.5**halvings for weight in self._weights]
            self._since_ns, halvings = now_ns, 0.0
        place = int(math.log(max(value_ms, FIRST_BUCKET_MS) / FIRST_BUCKET_MS, BUCKET_RATIO))
        self._weights[min(place, BUCKETS - 1)] += 2.0**halvings

    def value_ms(self) -> float | None:
        """None until there is a sample."""
        half = sum(self._weights) / 2
        if half <= 0.0:
            return None
        place = -1
        while half > 0.0:
            place += 1
            half -= self._weights[place]
        return FIRST_BUCKET_MS * float(BUCKET_RATIO ** (place + 0.5))


class Health:
    """One model, as this worker sees it."""

    __slots__ = ("circuit", "first_token_ms", "in_flight", "output_tokens_mean")

    def __init__(self) -> None:
        self.circuit = Circuit()
        self.in_flight = 0
        self.first_token_ms = DecayedMedian()
        self.output_tokens_mean: float | None = None

    def learned_output(self, tokens: int) -> None:
        mean = self.output_tokens_mean
        self.output_tokens_mean = float(tokens) if mean is None else mean + MEAN_WEIGHT * (tokens - mean)


class Fleet:
    """All models of one worker. ``changed`` is told when a circuit changes: (model, state, reason)."""

    __slots__ = ("_healths", "_providers", "_retries", "changed")

    def __init__(self, now_ns: int, changed: Callable[[Model, str, str], None]) -> None:
        self._healths: dict[str, Health] = {}
        self._providers: dict[str, int] = {}
        self._retries = RetryBudget(now_ns)
        self.changed = changed

    def of(self, model: Model) -> Health:
        health = self._healths.get(model.name)
        if health is None:
            health = self._healths[model.name] = Health()
        return health

    def provider_in_flight(self, name: str) -> int:
        return self._providers.get(name, 0)

    def arrived(self) -> None:
        """A request is about to be routed: it earns its share of a retry."""
        self._retries.earn()

    def may_retry(self, now_ns: int) -> bool:
        return self._retries.spend(now_ns)

    def begin(self, model: Model, now_ns: int) -> str:
        """Takes a place at ``model``; "" when taken, else why not. A place taken is given back by ``end``."""
        health = self.of(model)
        busy = self._providers.get(model.provider.name, 0)
        if busy >= model.provider.concurrent_max:
            return f"{busy} requests in flight at provider {model.provider.name}, its concurrent_max"
        if not health.circuit.begin(now_ns):
            return f"circuit {health.circuit.state}"
        health.in_flight += 1
        self._providers[model.provider.name] = busy + 1
        return ""

    def end(self, model: Model) -> None:
        self.of(model).in_flight -= 1
        self._providers[model.provider.name] -= 1

    def succeeded(self, model: Model, first_token_ms: float, now_ns: int) -> None:
        health = self.of(model)
        health.first_token_ms.add(first_token_ms, now_ns)
        if health.circuit.succeeded(now_ns):
            self.changed(model, "closed", "probes succeeded")

    def failed(self, model: Model, reason: str, now_ns: int, retry_after_s: float | None = None) -> None:
        if self.of(model).circuit.failed(now_ns, retry_after_s):
            self.changed(model, "open", reason)

    def released(self, model: Model) -> None:
        self.of(model).circuit.released()
