"""The books checked in the store: each question is one statement of the operator's, so that its answer is one moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
from psycopg import sql
from psycopg.rows import TupleRow, dict_row

from shipworthy.adapters.store.acts import EPOCH
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Store
from shipworthy.model.books import Balance, Difference, Excuse, Presumed, Used
from shipworthy.model.money import Component

STATEMENT_MS = 900_000
LEVELS_SINCE = 29
"""The migration from which on rows say the levels that they were charged to."""

ATTEMPTS_LAST = timedelta(days=1)
"""How long after an exchange's arrival its last attempt may begin."""

GROUPS_MAX = 100_000
FIRST_DAY = EPOCH.date()
EXCUSES = {"": Excuse.NONE, "levels": Excuse.BEFORE_LEVELS, "retention": Excuse.RETENTION}
INPUT = [component for component in Component if component.is_input]
OUTPUT = [component for component in Component if component.is_output]


class StoreBooks:
    """ports.Books."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sql = blocks("books")

    async def balance(self, tenant: str, since: datetime | None, rows_since: datetime, limit: int) -> Balance:
        asked = {
            "tenant": tenant,
            "since": since,
            "rows_since": rows_since,
            "levels_since": LEVELS_SINCE,
            "limit": limit + 1,  # one more tells whether there are more
        }
        async with self._store.operator() as conn:
            await conn.execute(self._sql["patience"], {"ms": str(STATEMENT_MS)})
            found = await conn.cursor(row_factory=dict_row).execute(self._sql["balance"], asked)
            totals = await found.fetchone()
        assert totals is not None, "the balance is one row"
        differences = tuple(_difference(each) for each in totals.pop("differences"))
        return Balance(**totals, differences=differences[:limit], more=len(differences) > limit)

    async def used(self, provider: str, first: date, last: date) -> Sequence[Used]:
        asked: dict[str, object] = {
            "provider": provider,
            "input": INPUT,
            "cached": Component.CACHE_READ,
            "output": OUTPUT,
            "first_day": (first - FIRST_DAY).days,
            "last_day": (last - FIRST_DAY).days,
            "limit": GROUPS_MAX,
        }
        return [_used(row) for row in await self._over(self._sql["used"], asked, first, last)]

    async def presumed(self, first: date, last: date) -> Sequence[Presumed]:
        rows = await self._over(self._sql["presumed"], {"limit": GROUPS_MAX}, first, last)
        found = [Presumed(day=_day(day), exchanges=count, nano=int(nano)) for day, count, nano in rows]
        return [each for each in found if first <= each.day <= last]

    async def _over(self, query: sql.SQL, asked: dict[str, object], first: date, last: date) -> list[TupleRow]:
        """``query`` over the exchanges whose attempts may have begun on those days."""
        begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
        end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
        async with self._store.operator() as conn:
            await conn.execute(self._sql["patience"], {"ms": str(STATEMENT_MS)})
            found = await conn.execute(query, asked | {"from": begin - ATTEMPTS_LAST, "to": end})
            return await found.fetchall()


def _difference(record: dict[str, object]) -> Difference:
    return msgspec.convert({**record, "excuse": EXCUSES[str(record["excuse"])]}, Difference)


def _used(row: TupleRow) -> Used:
    day, upstream, *figures = row
    names = Used.__struct_fields__[2:]
    return Used(
        day=_day(day),
        upstream=upstream,
        **dict(zip(names, (int(figure or 0) for figure in figures), strict=True)),
    )


def _day(number: int) -> date:
    return FIRST_DAY + timedelta(days=int(number))
