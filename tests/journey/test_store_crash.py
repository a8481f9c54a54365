"""PostgreSQL is killed while money moves: nothing acknowledged is lost, nothing is charged twice, and it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
import uvloop

from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import PostgresLedger
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.recorder import PostgresRecorder, RecorderBounds
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.sweep import sweep
from shipworthy.kit.builders import a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.exchange import Bodies
from shipworthy.ports import Entry

TENANT = "northwind"
CLAIMS = [a_claim("team=a", 10**15, requests=10**6), a_claim("tenant", 10**15, requests=10**6, concurrent=10**6)]
KEYRING = Keyring((Kek("k", bytes(32)),), bytes(32))


class Traffic:
    """Callers that reserve and record without end, and what they were told."""

    def __init__(self, store: Store) -> None:
        self.ledger = PostgresLedger(store, "worker-1")
        self.recorder = PostgresRecorder(store, Vault(KEYRING), lambda _: None)
        self.acknowledged: set[UUID] = set()
        self.enqueued: set[UUID] = set()
        self.unavailable = 0
        self.stopped = False

    async def caller(self, strict: bool) -> None:
        while not self.stopped:
            op = an_op()
            try:
                hold = await self.ledger.reserve(op, TENANT, CLAIMS, an_estimate(1_000), lambda: b"")
                charge = a_charge(hold, 7)
                entry = Entry(a_settled_row(op, hold, charge), Bodies(b"question", b"answer", False), hold, charge)
                if strict:
                    await self.recorder.record(entry)
                    self.acknowledged.add(op.id)
                else:
                    self.recorder.enqueue(entry)
                    self.enqueued.add(op.id)
            except StoreUnavailable:
                self.unavailable += 1
                await asyncio.sleep(0.05)

    async def until(self, done: Callable[[], bool], within_s: float = 30.0) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert time.monotonic() < end, f"{len(self.acknowledged)} acknowledged, {self.unavailable} unavailable"
            await asyncio.sleep(0.01)


def test_postgres_is_killed_while_money_moves(own_postgres) -> None:
    """kill -9 of the server, twice, under strict and relaxed callers; then every figure is compared with the rows."""
    urls = own_postgres.create("store_crash", "template_store")

    async def scene() -> None:
        async with Store(urls.url) as store:
            traffic = Traffic(store)
            callers = [asyncio.create_task(traffic.caller(strict=number % 2 == 0)) for number in range(8)]
            for _ in range(2):
                before = len(traffic.acknowledged)
                await traffic.until(lambda before=before: len(traffic.acknowledged) >= before + 50)
                os.kill(own_postgres.launcher.start().pid, signal.SIGKILL)
                await asyncio.to_thread(own_postgres.launcher.start)
            before = len(traffic.acknowledged)
            await traffic.until(lambda: len(traffic.acknowledged) >= before + 50)
            traffic.stopped = True
            await asyncio.gather(*callers)
            assert await traffic.recorder.close(20) == 0
            await sweep(an_op(), StoreSweeper(store, Vault(KEYRING)), ["worker-1"])
            check(urls.superuser_url, traffic)

    uvloop.run(scene())


def check(url: str, traffic: Traffic) -> None:
    with psycopg.connect(url, options="-c search_path=shipworthy") as conn:
        rows = dict(conn.execute("select id, charged_nano from exchange").fetchall())
        said = traffic.acknowledged | traffic.enqueued
        assert said <= rows.keys(), f"{len(said - rows.keys())} of {len(said)} are lost"
        assert {rows[row_id] for row_id in said} == {7}
        spent = sum(rows.values())
        counters = conn.execute("select charged_nano, held_nano from counter").fetchall()
        assert counters == [(spent, 0)] * len(CLAIMS)
        assert conn.execute("select sum(in_flight) from pace").fetchone() == (0,)
        unsealed = "select count(*) from body b left join data_key k using (tenant, key_id) where k.wrapped is null"
        assert conn.execute(unsealed).fetchone() == (0,)


def test_a_record_waits_for_its_bound_and_is_written_when_the_store_is_back(own_postgres) -> None:
    """`record` raises within its bound, by name; the entry is kept, flagged and written; nothing has to be said twice."""
    urls = own_postgres.create("store_away", "template_store")

    async def scene() -> None:
        async with Store(urls.url) as store:
            recorder = PostgresRecorder(store, Vault(KEYRING), lambda _: None, RecorderBounds(record_s=0.5))
            ledger = PostgresLedger(store, "w")
            await recorder.record(Entry(a_row(an_op(), TENANT), None, None, None))
            own_postgres.launcher.stop()
            op = an_op()
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match=r"^store\.\w+: .* \(waited 0.5 s\)$"):
                await recorder.record(Entry(a_row(op, TENANT), None, None, None))
            assert time.monotonic() - began < 2.0
            with pytest.raises(StoreUnavailable, match=r"^store\.\w+: "):
                await ledger.reserve(an_op(), TENANT, CLAIMS, an_estimate(1), lambda: b"")
            assert time.monotonic() - began < 12.0
            await asyncio.to_thread(own_postgres.launcher.start)
            assert await recorder.close(20) == 0
            async with store.tenant(TENANT) as conn:
                found = await conn.execute("select flags from exchange where id = %s", (op.id,))
                assert await found.fetchall() == [(["record_late"],)]

    asyncio.run(scene())
