"""Budget alerts: thresholds that charges have passed are raised once, said, and posted until the receiver has them.

Looked for off the hot path, at the counters themselves: what is compared is what bills come from. A request that passes a
threshold waits for nothing. Crash-safe by order: the alert stands in the store before it is said, and is said before it may
be posted; whoever finds a step left undone does it, so that each is done at least once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from msgspec import Struct

from shipworthy.model.alert import EACH_END_USER, Alert, Watch
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.money import Period, period_bounds
from shipworthy.model.observation import BudgetAlert
from shipworthy.model.op import Op
from shipworthy.model.policy import Budget, Snapshot
from shipworthy.ports import Alerts, EndUsers

WATCHED_MAX = 2_000
"""Thresholds that one look compares; where there are more, looks take turns."""
LATE_S = 900.0
"""So long after a period's end its charges may still arrive: the life of a hold."""
FORGOTTEN_MAX = 5_000
PRECISE_DIMENSIONS = ("team", "use_case", "end_user")
"""What the record can be asked for, to know a level's pace."""


class Watched(Struct, frozen=True):
    """A budget with thresholds, and the level that it stands on."""

    tenant: str
    key: str
    budget: Budget


def watched(snapshot: Snapshot) -> tuple[Watched, ...]:
    """Every budget of ``snapshot`` that has thresholds, each level once; a use case's applies in each tenant."""
    found = [
        Watched(tenant.name, key, budget)
        for tenant in snapshot.tenants.values()
        for key, budget in (
            ("tenant", tenant.budget),
            *((f"team={team.name}", team.budget) for team in tenant.teams.values()),
            *((f"use_case={use_case.name}", use_case.budget) for use_case in snapshot.use_cases.values()),
            *((EACH_END_USER, role.each_end_user) for role in tenant.roles),
        )
        if budget is not None and budget.alert_at_permille and budget.cap_nano > 0
    ]
    return tuple(dict.fromkeys(found))


class Rounds:
    """Whose turn it is: each look takes a bounded part of all thresholds and one page of end users; the next goes on."""

    def __init__(self) -> None:
        self._of: Snapshot | None = None
        self._named: tuple[Watched, ...] = ()
        self._each: tuple[Watched, ...] = ()
        self._place = 0  # among the named
        self._group = 0  # among the periods of end users
        self._after = ""

    def next(self, snapshot: Snapshot, at: datetime) -> tuple[list[Watch], EndUsers | None]:
        """What to compare now."""
        if snapshot is not self._of:
            every = watched(snapshot)
            self._of = snapshot
            self._named = tuple(level for level in every if level.key != EACH_END_USER)
            self._each = tuple(level for level in every if level.key == EACH_END_USER)
            self._place = self._group = 0
            self._after = ""
        when = When(at)
        watches = self._named_part(when)
        groups: dict[tuple[str, str, datetime], list[Watch]] = {}
        for watch in (watch for level in self._each for watch in when.watches(level)):
            groups.setdefault((watch.tenant, watch.period, watch.period_start), []).append(watch)
        if not groups:
            return watches, None
        tenant, period, start = list(groups)[self._group % len(groups)]
        return watches + groups[tenant, period, start], EndUsers(tenant, period, start, self._after)

    def went(self, after: str) -> None:
        """The look succeeded; the end users' next page begins after ``after``, "" = with the next period."""
        self._after = after
        self._group += not after

    def _named_part(self, when: When) -> list[Watch]:
        part: list[Watch] = []
        for _ in self._named:
            if len(part) >= WATCHED_MAX:
                break
            part += when.watches(self._named[self._place])
            self._place = (self._place + 1) % len(self._named)
        return part


class When:
    """The periods that run at a moment, and those before them whose charges may still arrive; each worked out once."""

    def __init__(self, at: datetime) -> None:
        self._moments = (at - timedelta(seconds=LATE_S), at)
        self._bounds: dict[tuple[Period, ZoneInfo], tuple[tuple[datetime, datetime], ...]] = {}

    def watches(self, level: Watched) -> Iterator[Watch]:
        """The thresholds of ``level`` in these periods."""
        budget = level.budget
        bounds = self._bounds.get((budget.per, budget.zone))
        if bounds is None:
            found = (period_bounds(budget.per, budget.zone, moment) for moment in self._moments)
            bounds = self._bounds[budget.per, budget.zone] = tuple(dict.fromkeys(found))
        for start, end in bounds:
            for permille in budget.alert_at_permille:
                yield Watch(level.tenant, level.key, budget.per.value, start, end, budget.cap_nano, permille)


async def look(op: Op, alerts: Alerts, snapshot: Snapshot, rounds: Rounds, *, deliver: bool) -> Sequence[Alert]:
    """Raises and says what was passed since the last look; ``deliver`` puts it into the outbox. Raises StoreUnavailable."""
    watches, end_users = rounds.next(snapshot, _now(op))
    if not watches:
        return ()
    passed = await alerts.raise_passed(watches, end_users, deliver)
    rounds.went(passed.after)
    for alert in passed.alerts:
        await _say(op, alerts, alert)
    return passed.alerts


async def forget(op: Op, alerts: Alerts, retention_days: int) -> int:
    """Removes alerts of periods that ended before the record's retention. Raises StoreUnavailable."""
    return await alerts.forget(_now(op) - timedelta(days=retention_days), FORGOTTEN_MAX)


async def _say(op: Op, alerts: Alerts, alert: Alert) -> None:
    exhausted_at = await _exhausted_at(alerts, alert)
    op.observe(
        BudgetAlert(
            alert_id=str(alert.id),
            tenant=alert.tenant,
            budget=alert.key,
            threshold=alert.threshold,
            charged_nano=alert.charged_nano,
            cap_nano=alert.cap_nano,
            period=alert.period,
            period_start=alert.period_start.isoformat(),
            period_end=alert.period_end.isoformat(),
            exhausted_at=exhausted_at.isoformat() if exhausted_at else "",
        )
    )
    await alerts.said(alert, exhausted_at)


async def _exhausted_at(alerts: Alerts, alert: Alert) -> datetime | None:
    """When the cap is reached at the level's pace; an alert does not wait for it longer than the store's stated bound."""
    names = dict.fromkeys(PRECISE_DIMENSIONS, "")
    for part in alert.key.split("/"):
        dimension, _, name = part.partition("=")
        if dimension in names and not name.startswith("sha256="):
            names[dimension] = unquote(name, errors="surrogatepass")
        elif part != "tenant":
            return None
    try:
        pace = await alerts.pace(alert.tenant, names["team"], names["use_case"], names["end_user"])
    except StoreUnavailable:
        return None
    return pace.exhausted_at(alert)


def _now(op: Op) -> datetime:
    return datetime.fromtimestamp(op.clock.unix_ns() / 1e9, UTC)
