"""Claims: every level that counts for a request, with its caps in the running period, in lock order.

Until a period ends or the wall clock is set back, a path's claims are the same object: ledgers know a path by it, and no
request pays for the calendar.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from shipworthy.model.ledger import Claim
from shipworthy.model.money import period_bounds
from shipworthy.model.policy import Budget, Level, Limits

PATHS_MAX = 4_096
"""How many paths' claims are kept; whoever comes beyond takes the place of the oldest."""

NO_BUDGET = -1
NS_PER_S = 1_000_000_000
_NO_LIMITS = Limits()

Levels = tuple[Level, ...]


class _Known(Struct, frozen=True):
    """``claims`` of ``levels`` (kept, so that their id stays theirs), true from ``since_ns`` until ``until_ns``."""

    levels: Levels
    claims: tuple[Claim, ...]
    since_ns: float
    until_ns: float


def make_claims(paths_max: int = PATHS_MAX) -> Callable[[Levels, int], tuple[Claim, ...]]:
    """The claims of levels at a moment (unix ns)."""
    known: dict[int, _Known] = {}

    def claims(levels: Levels, at_ns: int) -> tuple[Claim, ...]:
        found = known.get(id(levels))
        if found is None or not found.since_ns <= at_ns < found.until_ns:
            if found is None and len(known) >= paths_max:
                del known[next(iter(known))]
            found = known[id(levels)] = _know(levels, at_ns)
        return found.claims

    return claims


def _know(levels: Levels, at_ns: int) -> _Known:
    at = datetime.fromtimestamp(at_ns // NS_PER_S, UTC)
    claims = tuple(claim(level, at) for level in levels)
    since_ns = max((_unix_ns(each.period_start) for each in claims if each.period_start), default=float("-inf"))
    until_ns = min((_unix_ns(each.period_end) for each in claims if each.period_end), default=float("inf"))
    return _Known(levels, claims, since_ns, until_ns)


def _unix_ns(moment: datetime) -> int:
    """Exact: periods begin and end on whole seconds."""
    return int(moment.timestamp()) * NS_PER_S


def claim(level: Level, at: datetime) -> Claim:
    """``level`` with its caps in the period that holds ``at``."""
    limits = level.limits or _NO_LIMITS
    cap, period, start, end = _period(level.budget, at)
    return Claim(
        key=level.key,
        cap_nano=cap,
        period=period,
        period_start=start,
        period_end=end,
        requests_per_min=limits.requests_per_min,
        tokens_per_min=limits.tokens_per_min,
        concurrent=limits.concurrent,
    )


def _period(budget: Budget | None, at: datetime) -> tuple[int, str, datetime | None, datetime | None]:
    if budget is None:
        return NO_BUDGET, "", None, None
    start, end = period_bounds(budget.per, budget.zone, at)
    return budget.cap_nano, budget.per.value, start, end
