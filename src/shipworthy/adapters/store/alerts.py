"""Budget alerts in the store: raised once whatever number of control planes look, and the outbox of their webhook.

Two leases keep control planes apart, both given back by time if their holder dies: whoever raised an alert says it, and
whoever claimed a delivery posts it. So each is said and posted at least once, and almost always exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store, StoreRole
from shipworthy.model.alert import Alert, Delivery, Pace, Watch
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.ports import EndUsers, Passed

ALERTS_LISTED_MAX = 1_000
COLUMNS: tuple[str, ...] = Alert.__struct_fields__
_NO_PAGE = EndUsers("", "", datetime(1970, 1, 1, tzinfo=UTC), "")


class AlertBounds(Struct, frozen=True):
    """Every bound of alerts in the store."""

    raised_max: int = 20  # a look; what is beyond it is raised by the next
    end_users_max: int = 2_000  # counters of end users a look
    say_s: float = 30.0  # how long whoever raised an alert has to say it
    lease_s: float = 20.0  # how long one control plane has a delivery for itself: longer than any POST may take
    pace_s: float = 3_600.0
    pace_exchanges_max: int = 20_000
    pace_ms: int = 500


class StoreAlerts:
    """ports.Alerts and ports.AlertLog. ``now`` None means the store's clock; tests hand in their own."""

    def __init__(
        self, store: Store, bounds: AlertBounds | None = None, now: Callable[[], datetime] | None = None
    ) -> None:
        self._store = store
        self._bounds = bounds or AlertBounds()
        self._now = now
        own = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        of_a = sql.SQL(", ").join(sql.Identifier("a", column) for column in COLUMNS)
        self._sql = {name: block.format(columns=own, columns_of_a=of_a) for name, block in blocks("alerts").items()}

    async def raise_passed(self, watches: Sequence[Watch], end_users: EndUsers | None, deliver: bool) -> Passed:
        page = end_users or _NO_PAGE
        bounds = self._bounds
        asked: dict[str, object] = {
            "now": self._clock(),
            "tenants": [watch.tenant for watch in watches],
            "keys": [watch.key for watch in watches],
            "periods": [watch.period for watch in watches],
            "starts": [watch.period_start for watch in watches],
            "ends": [watch.period_end for watch in watches],
            "caps": [watch.cap_nano for watch in watches],
            "permilles": [watch.permille for watch in watches],
            "at_nanos": [watch.at_nano for watch in watches],
            "page_tenant": page.tenant,
            "page_period": page.period,
            "page_start": page.period_start,
            "page_after": page.after,
            "page_max": bounds.end_users_max,
            "delivery": Delivery.PENDING if deliver else Delivery.NONE,
            "say_s": bounds.say_s,
            "limit": bounds.raised_max,
        }

        async def question(conn: Connection, _: bool) -> list[DictRow]:
            cursor = conn.cursor(row_factory=dict_row)
            return await (await cursor.execute(self._sql["raise_passed"], asked)).fetchall()

        rows = await self._store.ask(StoreRole.OPERATOR, question)
        last, count = rows[0]["last"], rows[0]["count"]
        raised = [_alert(row) for row in rows if row["id"] is not None]
        full = len(raised) >= bounds.raised_max  # there may be more on this page: it is looked at again
        if full and end_users is not None:
            return Passed(tuple(raised), end_users.after)
        return Passed(tuple(raised), str(last) if count == bounds.end_users_max else "")

    async def pace(self, tenant: str, team: str, use_case: str, end_user: str) -> Pace:
        bounds = self._bounds
        asked = {
            "now": self._clock(),
            "tenant": tenant,
            "team": team,
            "use_case": use_case,
            "end_user": end_user,
            "window_s": bounds.pace_s,
            "limit": bounds.pace_exchanges_max,
        }
        async with self._store.operator() as conn:
            await conn.execute(self._sql["patience"], {"ms": str(bounds.pace_ms)})
            row = await (await conn.execute(self._sql["pace"], asked)).fetchone()
        assert row is not None, "an aggregate answers with one row"
        return Pace(int(row[0]), float(row[1]))

    async def said(self, alert: Alert, exhausted_at: datetime | None) -> None:
        await self._run("said", {"tenant": alert.tenant, "id": alert.id, "exhausted_at": exhausted_at})

    async def claim(self, limit: int) -> Sequence[Alert]:
        asked = {"now": self._clock(), "limit": limit, "lease_s": self._bounds.lease_s}

        async def question(conn: Connection, _: bool) -> list[DictRow]:
            cursor = conn.cursor(row_factory=dict_row)
            return await (await cursor.execute(self._sql["claim"], asked)).fetchall()

        claimed = await self._store.ask(StoreRole.OPERATOR, question)
        return sorted(map(_alert, claimed), key=lambda alert: alert.number)

    async def mark(self, alert: Alert, delivery: Delivery, status: int, reason: str, again_s: float) -> None:
        asked: dict[str, object] = {"tenant": alert.tenant, "id": alert.id, "tries": alert.tries, "delivery": delivery}
        await self._run("mark", asked | {"now": self._clock(), "status": status, "reason": reason, "again_s": again_s})

    async def forget(self, before: datetime, limit: int) -> int:
        return await self._run("forget", {"before": before, "limit": limit})

    async def page(self, scope: str, limit: int) -> Sequence[Alert]:
        if not scope:
            raise ValueError("an empty scope is an error, never everything")
        asked = {"tenant": "" if scope == EVERY_TENANT else scope, "limit": max(1, min(limit, ALERTS_LISTED_MAX))}
        async with self._store.operator() if scope == EVERY_TENANT else self._store.tenant(scope) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            return [_alert(row) for row in await (await cursor.execute(self._sql["page"], asked)).fetchall()]

    async def _run(self, block: str, asked: dict[str, object]) -> int:
        async def question(conn: Connection, _: bool) -> int:
            return (await conn.execute(self._sql[block], asked)).rowcount

        return await self._store.ask(StoreRole.OPERATOR, question)

    def _clock(self) -> datetime | None:
        return self._now() if self._now else None


def _alert(row: DictRow) -> Alert:
    return msgspec.convert({column: row[column] for column in COLUMNS}, Alert)
