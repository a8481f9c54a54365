"""Who spends how much, in sums that are kept beside the record: what is read at a look does not grow with the record.

Three steps, all in the store (migration 0026). *Fold*: what was recorded since the mark is added to slots of a sixth of the
tenant's window, and a window that has ended is remembered by its rates. *Suspects*: slots of the running window, plus what
is too new to be folded. *Normals*: medians of remembered windows, asked for suspects only and kept for a minute.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime

from msgspec import Struct
from psycopg.rows import TupleRow

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store, StoreRole
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.op import Op
from shipworthy.model.policy import Runaway, Watched
from shipworthy.model.runaway import Normal, Spender, Suspect
from shipworthy.ports import Folded

STRETCH_S_MAX = 60
STRETCH_S_MIN = 5
SUSPECTS_MAX = 100
"""Of each kind, in each tenant, at one look: the dearest."""
NORMALS_AT_ONCE = 20
NORMALS_MAX = 10_000
NORMAL_NS_MAX = 60_000_000_000


class Remembered(Struct, frozen=True):
    """A normal, and until when it counts."""

    normal: Normal
    until_ns: int


class StoreSpendWatch:
    """A SpendWatch. ``now`` None means the store's clock; tests hand in their own."""

    def __init__(self, store: Store, now: Callable[[], datetime] | None = None) -> None:
        self._store = store
        self._now = now
        self._sql = blocks("pauses")
        self._stretch_s = STRETCH_S_MAX
        self._folded_to = self._looked_at = datetime.min
        self._normals: OrderedDict[Spender, Remembered] = OrderedDict()

    async def fold(self, rules: Mapping[str, Runaway]) -> Folded:
        asked = self._ruled(rules) | {"seconds": self._stretch_s, "now": self._now() if self._now else None}
        try:
            async with self._store.operator() as conn:
                row = await (await conn.execute(self._sql["fold"], asked)).fetchone()
        except StoreUnavailable:
            self._stretch_s = max(STRETCH_S_MIN, self._stretch_s // 2)  # it may have been too much for one statement
            raise
        if row is None:
            return Folded(ours=False)
        self._stretch_s = min(STRETCH_S_MAX, self._stretch_s * 2)
        self._folded_to, self._looked_at, behind = row
        return Folded(ours=True, behind=behind)

    async def suspects(self, rules: Mapping[str, Runaway]) -> Sequence[Suspect]:
        asked = self._ruled(rules) | {
            "least": [rule.at_least_nano_per_min for rule in rules.values()],
            "folded_to": self._folded_to,
            "now": self._looked_at,
            "limit": SUSPECTS_MAX,
        }

        async def question(conn: Connection, _: bool) -> list[TupleRow]:
            return await (await conn.execute(self._sql["suspects"], asked)).fetchall()

        rows = await self._store.ask(StoreRole.OPERATOR, question)
        return [Suspect(_spender(row), int(row[4])) for row in rows]

    async def normals(self, op: Op, rules: Mapping[str, Runaway], whose: Set[Spender]) -> Mapping[Spender, Normal]:
        now_ns = op.clock.monotonic_ns()
        found: dict[Spender, Normal] = {}
        for spender in whose:
            remembered = self._normals.get(spender)
            if remembered is not None and remembered.until_ns > now_ns:
                found[spender] = remembered.normal
        unknown = sorted(whose - found.keys(), key=lambda s: (s.tenant, s.kind, s.principal, s.session))
        for start in range(0, len(unknown), NORMALS_AT_ONCE):
            asked = await self._ask_normals(rules, unknown[start : start + NORMALS_AT_ONCE])
            for spender, normal in asked.items():
                self._normals[spender] = Remembered(normal, now_ns + NORMAL_NS_MAX)
                self._normals.move_to_end(spender)
            found |= asked
        while len(self._normals) > NORMALS_MAX:
            self._normals.popitem(last=False)
        return found

    async def forget(self) -> None:
        async def question(conn: Connection, _: bool) -> None:
            await conn.execute(self._sql["forget"], {"now": self._now() if self._now else None})

        await self._store.ask(StoreRole.OPERATOR, question)

    async def _ask_normals(self, rules: Mapping[str, Runaway], whose: Sequence[Spender]) -> dict[Spender, Normal]:
        asked = {
            "tenants": [spender.tenant for spender in whose],
            "kinds": [spender.kind.value for spender in whose],
            "principals": [spender.principal for spender in whose],
            "sessions": [spender.session for spender in whose],
            "minutes": [rules[spender.tenant].window_minutes for spender in whose],
            "days": [rules[spender.tenant].normal_days for spender in whose],
            "now": self._looked_at,
        }

        async def question(conn: Connection, _: bool) -> list[TupleRow]:
            return await (await conn.execute(self._sql["normals"], asked)).fetchall()

        rows = await self._store.ask(StoreRole.OPERATOR, question)
        return {_spender(row): Normal(int(row[4]), int(row[5])) for row in rows}

    def _ruled(self, rules: Mapping[str, Runaway]) -> dict[str, object]:
        return {
            "tenants": list(rules),
            "minutes": [rule.window_minutes for rule in rules.values()],
            "days": [rule.normal_days for rule in rules.values()],
        }


def _spender(row: TupleRow) -> Spender:
    tenant, kind, principal, session = row[:4]
    return Spender(tenant, Watched(kind), principal, session)
