"""Pauses in the store: made and released with their acts, listed for people, read at once by every worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg.rows import TupleRow, dict_row

from shipworthy.adapters.store.acts import record
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store
from shipworthy.model.pause import Pause, PauseAsked, Placed
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.ports import AdminAct

STANDING_MAX = 1_000
"""Pauses of one tenant that may stand at once."""
LISTED_MAX = 10_000
LOADED_MAX = 50_000
"""Pauses of all tenants together that a worker keeps in mind, the oldest first."""
CHANNEL = "shipworthy_pauses"


class Standing(Struct, frozen=True):
    """What a worker must know of a pause. ``watched``: the watch paused it, not a person."""

    tenant: str
    principal: str
    session: str
    at: datetime
    watched: bool


class Changed(Struct, frozen=True):
    """The number of the last change; ``standing`` None = it is the one that was known already."""

    version: int
    standing: Sequence[Standing] | None


class StorePauses:
    """A PauseStore, and where workers learn of pauses."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sql = blocks("pauses")

    async def changed(self, known: int) -> Changed:
        """Every pause that stands in any tenant, unless ``known`` is still the number of the last change."""

        async def question(conn: Connection, _: bool) -> list[TupleRow]:
            return await (await conn.execute(self._sql["changed"], {"known": known, "limit": LOADED_MAX})).fetchall()

        rows = await self._store.ask_ahead(question)
        version = int(rows[0][0])
        if version == known:
            return Changed(version, None)
        return Changed(version, [Standing(*columns) for _, *columns in rows if columns[0] is not None])

    async def pause(self, asked: PauseAsked, act: AdminAct) -> Placed:
        async with self._store.tenant(asked.tenant) as conn:
            found = await (await conn.execute(self._sql["standing"], {"tenant": asked.tenant})).fetchone()
            assert found is not None, "count() answers with one row"
            if found[0] >= STANDING_MAX:
                return Placed.FULL
            made = await conn.execute(self._sql["pause"], msgspec.to_builtins(asked, builtin_types=(UUID,)))
            if not made.rowcount:
                return Placed.ALREADY
            await record(conn, act)
        return Placed.PAUSED

    async def active(self, scope: str) -> Sequence[Pause]:
        async with self._reading(scope) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            rows = await (await cursor.execute(self._sql["active"], {"limit": LISTED_MAX})).fetchall()
        return msgspec.convert(rows, list[Pause])

    async def release(self, tenant: str, pause_id: UUID, because: str, act: AdminAct) -> Pause | None:
        asked = {"tenant": tenant, "id": pause_id, "by": act.actor, "because": because}
        async with self._store.tenant(tenant) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            row = await (await cursor.execute(self._sql["release"], asked)).fetchone()
            if row is None:
                return None
            await record(conn, act)
        return msgspec.convert(row, Pause)

    @asynccontextmanager
    async def _reading(self, scope: str) -> AsyncGenerator[Connection]:
        if not scope:
            raise ValueError("an empty scope is an error, never everything")
        async with self._store.operator() if scope == EVERY_TENANT else self._store.tenant(scope) as conn:
            yield conn
