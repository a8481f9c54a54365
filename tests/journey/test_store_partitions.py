"""The record's months: made ahead, never in the way of an insert, dropped as a whole when they are past."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from shipworthy.adapters.store.assertions import assert_store
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.recorder import PostgresRecorder
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.sweep import expire
from shipworthy.kit.builders import a_row, an_op
from shipworthy.model.exchange import Bodies
from shipworthy.ports import Entry

VAULT = Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))
PLACES = "select tableoid::regclass::text from exchange union all select tableoid::regclass::text from body order by 1"
PREPARE = "select partition, state from prepare_partitions(%s, %s)"


def an_entry(at: datetime) -> Entry:
    op = an_op()
    op.arrived_unix_ns = int(at.timestamp()) * 10**9
    return Entry(a_row(op), Bodies(b"question", b"", False), None, None)


async def prepare(store: Store, months: int, at: datetime) -> list[tuple[str, str]]:
    async with store.connection(StoreRole.OPERATOR) as conn:
        return await (await conn.execute(PREPARE, (months, at))).fetchall()


async def places(store: Store) -> list[str]:
    async with store.operator() as conn:
        return [place for (place,) in await (await conn.execute(PLACES)).fetchall()]


def test_months_are_made_ahead_and_dropped_when_past(fresh_store) -> None:
    """The 31st and the 1st; a month that has begun in the default partition stays there, by name; nothing is lost."""

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            recorder = PostgresRecorder(store, VAULT, print)
            await recorder.record(an_entry(datetime(2031, 2, 3, tzinfo=UTC)))
            assert await prepare(store, 2, datetime(2031, 1, 31, 23, 59, tzinfo=UTC)) == [
                ("exchange_2031_01", "created"),
                ("exchange_2031_02", "skipped"),
                ("exchange_2031_03", "created"),
                ("body_2031_01", "created"),
                ("body_2031_02", "skipped"),
                ("body_2031_03", "created"),
                ("cost_sum_2031_01", "created"),
                ("cost_sum_2031_02", "created"),
                ("cost_sum_2031_03", "created"),
                ("cost_slot_2031_01", "created"),
                ("cost_slot_2031_02", "skipped"),
                ("cost_slot_2031_03", "created"),
            ]
            assert await prepare(store, 0, datetime(2031, 1, 1, tzinfo=UTC)) == []
            for day in (datetime(2031, 1, 1, tzinfo=UTC), datetime(2031, 1, 31, 23, 59, 59, tzinfo=UTC)):
                await recorder.record(an_entry(day))
            await recorder.record(an_entry(datetime(2031, 3, 1, tzinfo=UTC)))
            assert await recorder.close() == 0
            assert await places(store) == [
                *("body_2031_01", "body_2031_01", "body_2031_03", "body_default"),
                *("exchange_2031_01", "exchange_2031_01", "exchange_2031_03", "exchange_default"),
            ]
            await assert_store(store)

    asyncio.run(scene())


def test_a_month_that_is_past_goes_as_a_whole(fresh_store) -> None:
    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            recorder, sweeper = PostgresRecorder(store, VAULT, print), StoreSweeper(store, VAULT)
            await prepare(store, 1, datetime(2020, 1, 1, tzinfo=UTC))
            for day in (datetime(2020, 1, 15, tzinfo=UTC), datetime(2020, 2, 15, tzinfo=UTC), datetime.now(UTC)):
                await recorder.record(an_entry(day))
            assert await recorder.close() == 0
            age = (datetime.now(UTC) - datetime(2020, 2, 2, tzinfo=UTC)).days
            gone = await expire(an_op(), sweeper, retention_days=age, bodies_days=30)
            assert gone.months == ("body_2020_01", "body_2020_02", "exchange_2020_01")
            assert len(await places(store)) == 3

    asyncio.run(scene())


def test_nothing_young_expires_whoever_asks(fresh_store) -> None:
    """The one way out of the record is no way to lose a trace."""

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            recorder = PostgresRecorder(store, VAULT, print)
            await recorder.record(an_entry(datetime.now(UTC)))
            await recorder.record(an_entry(datetime.now(UTC) - timedelta(hours=2)))
            assert await recorder.close() == 0
            async with store.operator() as conn:
                answer = await conn.execute("select exchanges, bodies from expire('infinity', 'infinity', 10)")
                assert await answer.fetchall() == [(1, 1)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with store.tenant("northwind") as conn:
                    await conn.execute("select expire('2000-01-01', '2000-01-01', 10)")

    asyncio.run(scene())


def test_sweepers_prepare_side_by_side(fresh_store) -> None:
    """Several at once, while rows come in: each month is made once and no insert fails."""

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            recorder = PostgresRecorder(store, VAULT, print)
            at = datetime(2032, 5, 5, tzinfo=UTC)
            acts = [prepare(store, 6, at) for _ in range(2)]
            made, _, *_ = await asyncio.gather(
                *acts, *(recorder.record(an_entry(datetime.now(UTC))) for _ in range(100))
            )
            assert len(made) in (0, 28)
            assert len(await places(store)) == 200
            assert await recorder.close() == 0

    asyncio.run(scene())
