"""What was spent, read from sums of hours and longer units and, where these do not reach, from rows: exact at every moment.

Migration 0024 says how rows become sums. Summing is a job of the control plane; when nobody does it, reading is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from msgspec import Struct
from psycopg import sql
from psycopg.rows import TupleRow

from shipworthy.adapters.store.acts import moment
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store
from shipworthy.adapters.store.trouble import translated
from shipworthy.model.reading import By, CostAsked, CostLine

READ_MS = 120_000
SUM_MS = 600_000
SUM_S = 1.0
"""After that nothing new is begun; five minutes of one tenant are the least that is summed at once."""

HOUR_NS = 3_600 * 10**9
UNITS = ("quarter", "day", "week", "month")
UNIX_NS_MAX = (1 << 63) - 1
NAMES = {
    By.TENANT: sql.SQL("e.tenant"),
    By.TEAM: sql.SQL("e.team"),
    By.USE_CASE: sql.SQL("e.use_case"),
    By.MODEL: sql.SQL("p.model"),
    By.PRINCIPAL: sql.SQL("e.subject"),
}


class Stretch(Struct, frozen=True):
    """From the beginning of one unit of that span to the beginning of another; UTC."""

    span: str
    since: datetime
    until: datetime


class Cut(Struct, frozen=True):
    """A span of time, in nanoseconds, cut where whole hours and, within them, whole longer units begin and end.

    Rows before ``hour_from`` and from ``hour_until`` on are read one by one.
    """

    since: int
    hour_from: int
    hour_until: int
    until: int

    @classmethod
    def of(cls, since: int, until: int) -> Cut:
        """``until`` 0 = without end."""
        until = max(since, until or UNIX_NS_MAX)
        first, last = -(-since // HOUR_NS) * HOUR_NS, until // HOUR_NS * HOUR_NS
        return cls(since, first, last, until) if first < last else cls(since, until, until, until)

    def nested(self) -> list[Stretch]:
        """The whole units of each span, shortest first, each within the one before."""
        found = [Stretch("hour", moment(self.hour_from), moment(self.hour_until))]
        for span in UNITS:
            outer = found[-1]
            first, last = began(span, outer.since), began(span, outer.until)
            if first < outer.since:
                first = after(span, first)
            found.append(Stretch(span, first, last) if first < last else Stretch(span, outer.until, outer.until))
        return found


def apart(nested: Sequence[Stretch]) -> Iterator[Stretch]:
    """The same time, each moment once: what no longer unit covers is left to the shorter ones."""
    for outer, inner in pairwise(nested):
        yield Stretch(outer.span, outer.since, inner.since)
        yield Stretch(outer.span, inner.until, outer.until)
    yield nested[-1]


def began(span: str, at: datetime) -> datetime:
    """When the unit in which ``at`` (a whole hour) lies began: ``unit_of`` of migration 0024."""
    match span:
        case "quarter":
            return at.replace(hour=at.hour // 6 * 6)
        case "day":
            return at.replace(hour=0)
        case "week":
            return at.replace(hour=0, day=min(3, (at.day - 1) // 8) * 8 + 1)
        case _:
            return at.replace(hour=0, day=1)


def after(span: str, at: datetime) -> datetime:
    """When the next unit begins after the one that began ``at``."""
    match span:
        case "quarter":
            return at + timedelta(hours=6)
        case "day":
            return at + timedelta(days=1)
        case "week" if at.day < 25:
            return at + timedelta(days=8)
        case _:
            return (at.replace(day=1) + timedelta(days=32)).replace(day=1)


class StoreCostSums:
    """Adds what was recorded to the sums that reports read. Any number may run at once: one at a time does the work."""

    def __init__(self, store: Store, now: Callable[[], datetime] | None = None) -> None:
        self._store = store
        self._now = now

    async def sum(self) -> bool:
        """One bounded piece of it; whether there is more to do. Raises StoreUnavailable."""
        with translated():
            async with self._store.operator() as conn:
                await conn.execute(blocks("costs")["patience"], {"ms": str(SUM_MS)})
                asked = {"seconds": SUM_S, "now": self._now() if self._now else None}
                answer = await (await conn.execute(blocks("costs")["sum"], asked)).fetchone()
        assert answer is not None, "sum_costs() returns one row"
        return bool(answer[0])


async def cost(conn: Connection, asked: CostAsked) -> Sequence[CostLine]:
    """What ``conn`` may see of it, in its open transaction."""
    cut = Cut.of(asked.since_unix_ns, asked.until_unix_ns)
    nested = cut.nested()
    whole = [stretch for stretch in apart(nested) if stretch.since < stretch.until]
    named: dict[str, object] = {
        "tenant": asked.tenant,
        "by": asked.by.value,
        **{name: moment(getattr(cut, name)) for name in cut.__struct_fields__},
        **{f"{name}_ns": getattr(cut, name) for name in cut.__struct_fields__},
        "spans": [stretch.span for stretch in whole],
        "begins": [stretch.since for stretch in whole],
        "ends": [stretch.until for stretch in whole],
        "units": [stretch.span for stretch in nested[1:]],
        "units_from": [stretch.since for stretch in nested[1:]],
        "units_until": [stretch.until for stretch in nested[1:]],
    }
    await conn.execute(blocks("costs")["patience"], {"ms": str(READ_MS)})
    found = await conn.execute(blocks("costs")["cost"].format(name=NAMES[asked.by]), named)
    return [_cost_line(row) for row in await found.fetchall()]


def _cost_line(row: TupleRow) -> CostLine:
    tenant, name, *figures = row
    names = CostLine.__struct_fields__[2:]
    return CostLine(tenant=tenant, name=name, **dict(zip(names, (int(figure or 0) for figure in figures), strict=True)))
