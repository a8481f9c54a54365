"""What was spent, read from sums of days and hours and, where these do not reach, from the rows: exact at every moment.

Migration 0024 says how rows become sums. Summing is a job of the control plane; when nobody does it, reading is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from msgspec import Struct
from psycopg import sql
from psycopg.rows import TupleRow

from shipworthy.adapters.store.acts import moment
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store
from shipworthy.adapters.store.trouble import translated
from shipworthy.model.reading import By, CostAsked, CostLine

READ_MS = 120_000
SUM_MS = 120_000
SUM_S = 1.0
"""After that nothing new is begun: an hour of one tenant's is the least that is summed at once."""

HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
UNIX_NS_MAX = (1 << 63) - 1
NAMES = {
    By.TENANT: sql.SQL("e.tenant"),
    By.TEAM: sql.SQL("e.team"),
    By.USE_CASE: sql.SQL("e.use_case"),
    By.MODEL: sql.SQL("p.model"),
    By.PRINCIPAL: sql.SQL("e.subject"),
}


class Stretches(Struct, frozen=True):
    """A span cut where whole hours and, within them, whole days (UTC) begin and end; nanoseconds.

    Each is at least the one before. Rows before ``hour_from`` and from ``hour_until`` on are read one by one.
    """

    since: int
    hour_from: int
    day_from: int
    day_until: int
    hour_until: int
    until: int

    @classmethod
    def of(cls, since: int, until: int) -> Stretches:
        """``until`` 0 = without end."""
        until = max(since, until or UNIX_NS_MAX)
        hour_from, hour_until = _whole(since, until, HOUR_NS)
        day_from, day_until = _whole(hour_from, hour_until, DAY_NS)
        return cls(since, hour_from, day_from, day_until, hour_until, until)


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
    cut = Stretches.of(asked.since_unix_ns, asked.until_unix_ns)
    named: dict[str, object] = {
        "tenant": asked.tenant,
        "by": asked.by.value,
        **{name: moment(getattr(cut, name)) for name in cut.__struct_fields__},
        **{f"{name}_ns": getattr(cut, name) for name in ("since", "hour_from", "hour_until", "until")},
    }
    await conn.execute(blocks("costs")["patience"], {"ms": str(READ_MS)})
    found = await conn.execute(blocks("costs")["cost"].format(name=NAMES[asked.by]), named)
    return [_cost_line(row) for row in await found.fetchall()]


def _whole(since: int, until: int, unit: int) -> tuple[int, int]:
    """The whole units between the two; where there is none, the end twice."""
    first, last = -(-since // unit) * unit, until // unit * unit
    return (first, last) if first < last else (until, until)


def _cost_line(row: TupleRow) -> CostLine:
    tenant, name, *figures = row
    names = CostLine.__struct_fields__[2:]
    return CostLine(tenant=tenant, name=name, **dict(zip(names, (int(figure or 0) for figure in figures), strict=True)))
