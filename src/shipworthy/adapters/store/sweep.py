"""What the sweeper needs of the store: orphaned holds of every tenant, and the recorder's way to settle them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg.rows import TupleRow, class_row

from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.ledger import claims_of
from shipworthy.adapters.store.months import prepare_months
from shipworthy.adapters.store.pool import Connection, Store, StoreRole
from shipworthy.adapters.store.trouble import first_line, passing, translated
from shipworthy.adapters.store.vault import Vault
from shipworthy.model.errors import ShipworthyError, StoreUnavailable
from shipworthy.model.exchange import Row
from shipworthy.model.ledger import Estimate, Hold, Standing
from shipworthy.model.observation import Failed
from shipworthy.model.op import Op
from shipworthy.ports import SUSPENDED_S, Entry, Expired, Orphan, Stray

TRIES_MAX = 3
PARTITIONS_S = 3_600.0
EXPIRE_MS = 60_000
PARTITIONS_AGAIN_S = 60.0


class Found(Struct, frozen=True):
    """A row of ``hold``."""

    tenant: str
    id: UUID
    arrived_unix_ns: int
    claims: str
    amount_nano: int
    tokens: int
    worker: str
    intent: bytes
    lease_id: UUID | None

    def orphan(self) -> Orphan:
        estimate = Estimate(self.tokens, 0, self.amount_nano)
        hold = Hold(self.id, self.tenant, estimate, claims_of(self.claims), Standing(), self.lease_id)
        return Orphan(hold, self.arrived_unix_ns, self.worker, self.intent)


class StoreSweeper:
    """ports.Sweeper. ``now`` None means the store's clock; tests hand in their own."""

    def __init__(self, store: Store, vault: Vault, now: Callable[[], datetime] | None = None) -> None:
        self._store = store
        self._now = now
        self._writer = BatchWriter(store.conninfo(StoreRole.RECORDER), vault, now)
        self._partitions_at = 0.0
        self._writing = asyncio.Lock()
        self._sql = blocks("sweep")

    async def orphans(self, dead_workers: Sequence[str], limit: int) -> Sequence[Orphan]:
        asked = {
            "now": self._now() if self._now else None,
            "dead": list(dead_workers),
            "limit": limit,
            "grace_s": SUSPENDED_S,
        }

        async def question(conn: Connection, _: bool) -> list[Found]:
            cursor = conn.cursor(row_factory=class_row(Found))
            return await (await cursor.execute(self._sql["orphans"], asked)).fetchall()

        return [found.orphan() for found in await self._store.ask(StoreRole.OPERATOR, question)]

    async def strays(self, dead_workers: Sequence[str], limit: int) -> Sequence[Stray]:
        asked = {"now": self._now() if self._now else None, "dead": list(dead_workers), "limit": limit}

        async def question(conn: Connection, _: bool) -> list[Stray]:
            cursor = conn.cursor(row_factory=class_row(Stray))
            return await (await cursor.execute(self._sql["strays"], asked)).fetchall()

        return await self._store.ask(StoreRole.OPERATOR, question)

    async def suspend(self, strays: Sequence[Stray]) -> int:
        return await self._each_tenant("suspend", strays)

    async def bury(self, strays: Sequence[Stray]) -> int:
        return await self._each_tenant("bury", strays)

    async def _each_tenant(self, block: str, strays: Sequence[Stray]) -> int:
        done = 0
        for tenant, group in groupby(strays, key=lambda stray: stray.tenant):
            asked = {
                "tenant": tenant,
                "leases": [stray.id for stray in group],
                "now": self._now() if self._now else None,
            }

            async def question(conn: Connection, _: bool, asked: dict[str, object] = asked) -> TupleRow | None:
                return await (await conn.execute(self._sql[block], asked)).fetchone()

            answer = await self._store.ask(StoreRole.RECORDER, question)
            assert answer is not None, "it returns a count"
            done += int(answer[0])
        return done

    async def presume(self, op: Op, entries: Sequence[Entry]) -> Sequence[Row]:
        if not entries:
            return ()
        async with self._writing:  # one connection, one writer
            try:
                return await asyncio.to_thread(self._presume, op, entries)
            finally:
                self._writer.disconnect()

    async def expire(self, rows_before: datetime, bodies_before: datetime, limit: int) -> Expired:
        asked = {"rows_before": rows_before, "bodies_before": bodies_before, "limit": limit}

        async with self._store.operator() as conn:
            await conn.execute(self._sql["patience"], {"ms": str(EXPIRE_MS)})
            answer = await (await conn.execute(self._sql["expire"], asked)).fetchone()
        assert answer is not None, "expire() returns one row"
        bodies, exchanges, acts, months = answer
        return Expired(bodies, exchanges, acts, tuple(months))

    async def prepare_partitions(self) -> Sequence[str]:
        if time.monotonic() < self._partitions_at:
            return ()
        prepared = await prepare_months(self._store)
        self._partitions_at = time.monotonic() + (PARTITIONS_S if prepared.complete else PARTITIONS_AGAIN_S)
        return prepared.said

    def _presume(self, op: Op, entries: Sequence[Entry]) -> Sequence[Row]:
        """All at once; one that cannot be stored is named and does not keep the others."""
        try:
            inserted = self._write(entries)
        except (psycopg.Error, ShipworthyError) as bad:
            if isinstance(bad, StoreUnavailable):
                raise
            if len(entries) == 1:
                reason = f"the hold cannot be settled: {type(bad).__name__}: {first_line(bad)}"
                op.observe(Failed("sweep", reason, str(entries[0].row.id), ""))
                return ()
            half = len(entries) // 2
            return [*self._presume(op, entries[:half]), *self._presume(op, entries[half:])]
        return [entry.row for entry in entries if entry.row.id in inserted]

    def _write(self, entries: Sequence[Entry]) -> frozenset[UUID]:
        with translated():
            for left in range(TRIES_MAX - 1, -1, -1):
                try:
                    return self._writer.write(entries, presume=True)
                except (psycopg.Error, OSError) as error:
                    if not left or not passing(error):
                        raise
        raise AssertionError("unreachable: the last try returns or raises")
