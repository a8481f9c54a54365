"""The store's money as the contract suite sees it: in memory, and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from psycopg.rows import class_row, dict_row

from shipworthy.adapters.store.keyring import open_keyring
from shipworthy.adapters.store.ledger import LedgerBounds, PostgresLedger
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.recorder import PostgresRecorder
from shipworthy.adapters.store.rows import COLUMNS, row_of
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.ledger import Figures, MemoryLedger
from shipworthy.model.exchange import Row
from shipworthy.model.ledger import Claim
from shipworthy.model.observation import Observation
from shipworthy.model.op import Op
from shipworthy.ports import Ledger, Recorder, Sweeper


class Dial:
    """A clock that stands until it is turned."""

    def __init__(self) -> None:
        self.at = datetime(2026, 6, 15, 12, 0, 0, 250_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def turn(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Bench:
    """One implementation of Ledger, Recorder and Sweeper over the same money, and how to look behind them."""

    ledger: Ledger
    recorder: Recorder
    sweeper: Sweeper
    dial: Dial
    figures: Callable[[str, Claim], object]  # awaitable: the counter of a level
    rows: Callable[[str], object]  # awaitable: the tenant's rows by id
    observed: list[Observation]
    hang_up: Callable[[], object]  # awaitable: nothing that worker-1 sent can still arrive
    ops: dict[UUID, Op] = field(default_factory=dict)


Opening = Callable[[], AbstractAsyncContextManager[Bench]]


@asynccontextmanager
async def memory_bench() -> AsyncIterator[Bench]:
    dial = Dial()
    ledger = MemoryLedger("worker-1", dial)

    async def figures(tenant: str, claim: Claim) -> Figures:
        return ledger.figures(tenant, claim)

    async def rows(tenant: str) -> dict[UUID, Row]:
        return {row.id: row for row in ledger.rows.values() if row.tenant == tenant}

    async def hang_up() -> None:
        ledger.hang_up()

    yield Bench(ledger, ledger, ledger, dial, figures, rows, [], hang_up)


@asynccontextmanager
async def postgres_bench(url: str, keys: Path) -> AsyncIterator[Bench]:
    dial = Dial()
    observed: list[Observation] = []
    vault = Vault(open_keyring(keys))
    async with Store(url) as store:
        recorder = PostgresRecorder(store, vault, observed.append, now=dial, worker="worker-1")

        async def figures(tenant: str, claim: Claim) -> Figures:
            async with store.tenant(tenant) as conn:
                cursor = conn.cursor(row_factory=class_row(Figures))
                await cursor.execute(
                    "select cap_nano, charged_nano, held_nano, leased_nano, suspended_nano from counter"
                    " where tenant = %s and key = %s and period = %s and period_start = %s",
                    (tenant, claim.key, claim.period, claim.period_start),
                )
                return await cursor.fetchone() or Figures(claim.cap_nano)

        async def rows(tenant: str) -> dict[UUID, Row]:
            async with store.tenant(tenant) as conn:
                cursor = conn.cursor(row_factory=dict_row)
                await cursor.execute(f"select {', '.join(COLUMNS)} from exchange where tenant = %s", (tenant,))
                return {row["id"]: row_of(row) for row in await cursor.fetchall()}

        ledger = PostgresLedger(store, "worker-1", LedgerBounds(), dial)
        sweeper = StoreSweeper(store, vault, dial)
        try:
            yield Bench(ledger, recorder, sweeper, dial, figures, rows, observed, recorder.close)
        finally:
            assert await recorder.close() == 0


@pytest.fixture(params=["memory", "postgres"])
def open_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """How to open the implementation under test: `async with open_bench() as bench`."""
    if request.param == "memory":
        return memory_bench
    urls = request.getfixturevalue("fresh_store")
    return lambda: postgres_bench(urls.url, tmp_path / "keys")
