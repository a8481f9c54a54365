"""Levels in memory, for tests: what a budget's counter and a limit's sliding minute say, and whether they have room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from shipworthy.model.errors import Refusal
from shipworthy.model.ledger import Claim, Estimate, Standing

WINDOW_S = 61  # the second that is running, and the sixty before it

CounterKey = tuple[str, str, str, datetime]
Limited = Sequence[tuple[Claim, "Window"]]


class Figures(Struct):
    """One level's money in one period. ``charged + held + leased + suspended + free = cap``."""

    cap_nano: int = 0
    charged_nano: int = 0
    held_nano: int = 0
    leased_nano: int = 0
    suspended_nano: int = 0

    @property
    def taken_nano(self) -> int:
        return self.charged_nano + self.held_nano + self.leased_nano + self.suspended_nano


class Window:
    """A sliding minute in slots of a second, what is in flight, and what leases hold of it."""

    def __init__(self) -> None:
        self.requests: dict[int, int] = defaultdict(int)
        self.tokens: dict[int, int] = defaultdict(int)
        self.in_flight = 0
        self.leased_requests = self.leased_tokens = self.leased_places = 0

    def roll(self, second: int) -> None:
        for slots in (self.requests, self.tokens):
            for slot in [slot for slot in slots if slot <= second - WINDOW_S]:
                del slots[slot]

    def count(self, second: int, requests: int, tokens: int) -> None:
        self.requests[second] += requests
        self.tokens[second] += tokens

    def uncount(self, second: int, requests: int, tokens: int) -> None:
        """What has left the window stays as it is; no slot falls below zero."""
        for slots, less in ((self.requests, requests), (self.tokens, tokens)):
            if second in slots:
                slots[second] -= min(slots[second], less)

    @property
    def requests_sum(self) -> int:
        return sum(self.requests.values())

    @property
    def tokens_sum(self) -> int:
        return sum(self.tokens.values())


class Blocked(Struct, frozen=True):
    """A level without room. ``holds_only``: what stands in the way may come back any moment."""

    key: str
    holds_only: bool
    refusal: Refusal


class Levels:
    """Every tenant's counters and windows."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self._counters: dict[CounterKey, Figures] = {}
        self._windows: dict[tuple[str, str], Window] = {}

    def figures(self, tenant: str, claim: Claim) -> Figures:
        return self._counters.get(_counter_key(tenant, claim), Figures(claim.cap_nano))

    def cap_nano(self, tenant: str, claim: Claim) -> int:
        """As the latest reservation saw it."""
        return self.figures(tenant, claim).cap_nano

    def counters_of(self, tenant: str, claims: Iterable[Claim]) -> list[tuple[Figures, Claim]]:
        return [
            (self._counters.setdefault(_counter_key(tenant, claim), Figures(claim.cap_nano)), claim)
            for claim in claims
            if claim.cap_nano >= 0
        ]

    def rolled(self, tenant: str, claims: Iterable[Claim]) -> list[tuple[Claim, Window]]:
        limited = [claim for claim in claims if claim.requests_per_min or claim.tokens_per_min or claim.concurrent]
        windows = [(claim, self._windows.setdefault((tenant, claim.key), Window())) for claim in limited]
        for _, window in windows:
            window.roll(self.second)
        return windows

    @property
    def second(self) -> int:
        return int(self.now().timestamp())

    def blocked(self, tenant: str, claims: Sequence[Claim], estimate: Estimate) -> Blocked | None:
        """The first level that has no room for it; money is asked first."""
        return self.blocked_by_budget(tenant, claims, estimate.amount_nano) or self._blocked_by_limit(
            tenant, claims, estimate.tokens
        )

    def blocked_by_budget(self, tenant: str, claims: Iterable[Claim], amount_nano: int) -> Blocked | None:
        """What costs nothing never is."""
        if amount_nano <= 0:
            return None
        for claim in claims:
            figures = self.figures(tenant, claim)
            if claim.cap_nano < 0 or figures.taken_nano + amount_nano <= claim.cap_nano:
                continue
            assert claim.period_end is not None, f"the budget of {claim.key} has no period"
            refusal = Refusal(
                "reserve.budget_exhausted",
                retry_after_s=max(0.0, (claim.period_end - self.now()).total_seconds()),
                retryable=False,
                level=claim.key,
                period=claim.period,
            )
            spent_nano = figures.charged_nano + figures.suspended_nano
            return Blocked(claim.key, spent_nano + amount_nano <= claim.cap_nano, refusal)
        return None

    def _blocked_by_limit(self, tenant: str, claims: Iterable[Claim], tokens: int) -> Blocked | None:
        now_s = self.now().timestamp()
        for claim, window in self.rolled(tenant, claims):
            found = blocked_by_limit(claim, window, tokens, now_s)
            if found is not None:
                return found
        return None


def blocked_by_limit(claim: Claim, window: Window, tokens: int, now_s: float) -> Blocked | None:
    """Whether the level's window has no room."""
    requests, used = window.requests_sum + 1, window.tokens_sum + tokens
    after_s: float | None
    if claim.requests_per_min and requests + window.leased_requests > claim.requests_per_min:
        reason, over = "requests_limit", requests - claim.requests_per_min
        after_s = room_after_s(window.requests, over, now_s)
    elif claim.tokens_per_min and used + window.leased_tokens > claim.tokens_per_min:
        reason, over = "tokens_limit", used - claim.tokens_per_min
        after_s = room_after_s(window.tokens, over, now_s)
    elif claim.concurrent and window.in_flight + window.leased_places + 1 > claim.concurrent:
        reason, over = "concurrent_limit", window.in_flight + 1 - claim.concurrent
        after_s = 1.0
    else:
        return None
    after_s = None if after_s is None else max(0.0, after_s)
    refusal = Refusal(f"reserve.{reason}", retry_after_s=after_s, level=claim.key, period="minute")
    return Blocked(claim.key, over <= 0, refusal)


def room_after_s(slots: dict[int, int], surplus: int, now_s: float) -> float | None:
    """Seconds until ``surplus`` has left the window; None = it never will."""
    if surplus <= 0:
        return int(now_s) + 1 - now_s  # the slot that leaves next is empty
    for slot in sorted(slots):
        surplus -= slots[slot]
        if surplus <= 0:
            return slot + WINDOW_S - now_s
    return None


def standing(windows: Limited, now_s: float) -> Standing:
    """What is left at the tightest level."""
    requests = [
        (claim.requests_per_min - window.requests_sum - window.leased_requests, claim.requests_per_min, window.requests)
        for claim, window in windows
        if claim.requests_per_min
    ]
    tokens = [
        (claim.tokens_per_min - window.tokens_sum - window.leased_tokens, claim.tokens_per_min, window.tokens)
        for claim, window in windows
        if claim.tokens_per_min
    ]
    found: list[float] = []
    for level in (requests, tokens):
        left, limit, slots = min(level, key=lambda entry: entry[0], default=(0, 0, {}))
        found += [limit, max(0, left), (room_after_s(slots, 1, now_s) or 0.0) if limit else 0.0]
    return Standing(int(found[0]), int(found[1]), found[2], int(found[3]), int(found[4]), found[5])


def _counter_key(tenant: str, claim: Claim) -> CounterKey:
    return tenant, claim.key, claim.period, claim.period_start or datetime.min.replace(tzinfo=UTC)
