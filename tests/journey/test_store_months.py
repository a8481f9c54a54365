"""Rows that came when their month had no table: moved into one, whole and once, so that the month can go on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from tests.conftest import StoreUrls

from shipworthy.adapters.embedded.postgres_passwords import LOGIN
from shipworthy.adapters.store import migrate, months
from shipworthy.adapters.store.assertions import assert_store
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.recorder import PostgresRecorder
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.sweep import expire, sweep
from shipworthy.kit.builders import a_row, an_op
from shipworthy.model.exchange import Bodies
from shipworthy.model.observation import Lifecycle, Observation
from shipworthy.model.op import Kind, Op, SystemClock
from shipworthy.ports import Entry

VAULT = Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))
NOW = datetime.now(UTC)
THIS_MONTH = f"{NOW:%Y_%m}"
MEND = "select partition, state from mend_partitions(%s, %s, %s)"
PLACES = (
    "select tableoid::regclass::text, id::text from exchange"
    " union all select tableoid::regclass::text, exchange_id::text from body"
)


def an_entry(at: datetime) -> Entry:
    op = an_op()
    op.arrived_unix_ns = int(at.timestamp()) * 10**9
    return Entry(a_row(op), Bodies(b"question", b"", False), None, None)


async def record(store: Store, *days: datetime) -> None:
    recorder = PostgresRecorder(store, VAULT, print)
    for day in days:
        await recorder.record(an_entry(day))
    assert await recorder.close() == 0


async def places(store: Store) -> dict[str, int]:
    """How many rows stand in which table."""
    async with store.operator() as conn:
        found = await (await conn.execute(PLACES)).fetchall()
    assert len(found) == len(set(found))
    return {table: sum(place == table for place, _ in found) for table in {place for place, _ in found}}


async def mend(store: Store, at: datetime, bytes_max: int = 1 << 40) -> list[tuple[str, str]]:
    said: list[tuple[str, str]] = []
    async with store.connection(StoreRole.OPERATOR) as conn:
        while new := await (await conn.execute(MEND, (0, bytes_max, at))).fetchall():
            said += new
            if all(state != "mended" for _, state in new):
                break
    return said


def without_months(urls: StoreUrls) -> None:
    """As after a season without a control plane: no month that begins now has a table."""
    with psycopg.connect(urls.superuser_url, autocommit=True) as conn:
        made = conn.execute(
            "select c.oid::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            " where c.relname ~ '_[0-9]{4}_[0-9]{2}$'"
        ).fetchall()
        for (table,) in made:
            conn.execute(f"drop table {table}")


def test_a_month_that_began_without_a_table_gets_one(fresh_store: StoreUrls) -> None:
    """A start after a season, or a clock that ran ahead: the rows move, later ones follow, none is lost or doubled."""

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            feb = datetime(2031, 2, 3, tzinfo=UTC)
            await record(store, feb, feb + timedelta(days=20), datetime(2031, 3, 1, tzinfo=UTC))
            assert (await places(store))["exchange_default"] == 3
            assert await mend(store, datetime(2031, 1, 31, 23, tzinfo=UTC)) == []
            mended = await mend(store, feb)
            assert [said for said in mended if said[0].startswith(("exchange", "body"))] == [
                ("exchange_2031_02", "mended"),
                ("body_2031_02", "mended"),
            ]
            await record(store, feb + timedelta(days=1))
            found = await places(store)
            assert found == {
                "exchange_2031_02": 3,
                "body_2031_02": 3,
                "exchange_default": 1,
                "body_default": 1,
            }
            await assert_store(store)

    asyncio.run(scene())


def test_the_sweeper_mends_before_it_makes_months_and_says_so(fresh_store: StoreUrls) -> None:
    """What a worker recorded before the first sweep is in the running month afterwards; the second sweep finds nothing."""
    without_months(fresh_store)

    async def scene() -> None:
        said: list[Observation] = []
        op = Op(Kind.JOB, SystemClock(), said.append)
        async with Store(fresh_store.url) as store:
            await record(store, NOW, NOW, NOW - timedelta(days=400))
            await sweep(op, StoreSweeper(store, VAULT))
            old = f"{NOW - timedelta(days=400):%Y_%m}"
            assert await places(store) == {
                f"exchange_{THIS_MONTH}": 2,
                f"body_{THIS_MONTH}": 2,
                f"exchange_{old}": 1,
                f"body_{old}": 1,
            }
            (told,) = [seen for seen in said if isinstance(seen, Lifecycle)]
            assert f"exchange_{THIS_MONTH} mended" in told.detail
            assert "skipped" not in told.detail
            said.clear()
            await sweep(op, StoreSweeper(store, VAULT))
            assert said == []
            gone = await expire(op, StoreSweeper(store, VAULT), retention_days=300, bodies_days=30)
            assert set(gone.months) == {f"exchange_{old}", f"body_{old}"}

    asyncio.run(scene())


def test_months_are_made_before_the_first_row(fresh_store: StoreUrls) -> None:
    """A start prepares what it needs before any worker can record: then there is nothing to mend."""
    without_months(fresh_store)

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            assert f"exchange_{THIS_MONTH} created" in (await months.prepare_months(store)).said
            await record(store, NOW)
            assert await places(store) == {f"exchange_{THIS_MONTH}": 1, f"body_{THIS_MONTH}": 1}
            assert await months.prepare_months(store) == months.Prepared((), True)

    asyncio.run(scene())


def test_too_much_to_move_while_others_wait_is_left_and_named(
    fresh_store: StoreUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for gigabytes to be moved: the sweeper says what it left, and `shipworthy migrate` mends it."""
    without_months(fresh_store)
    monkeypatch.setattr(months, "MENDED_BYTES_MAX", 0)

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            await record(store, NOW)
            said = (await months.prepare_months(store)).said
            assert {"exchange_default left", "body_default left", f"exchange_{THIS_MONTH} skipped"} <= set(said)
            assert (await places(store))["exchange_default"] == 1
            await asyncio.to_thread(migrate.apply, fresh_store.migrate_url, LOGIN)
            assert await places(store) == {f"exchange_{THIS_MONTH}": 1, f"body_{THIS_MONTH}": 1}

    asyncio.run(scene())


def test_readers_and_writers_meet_every_row_once_while_a_month_is_moved(fresh_store: StoreUrls) -> None:
    """Rows come in, others are counted in one snapshot, and several sweepers mend: no insert fails, no count is off."""
    without_months(fresh_store)

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            await record(store, *[NOW] * 50)
            counts: list[int] = []
            over = asyncio.Event()

            async def count() -> None:
                conn = await psycopg.AsyncConnection.connect(store.conninfo(StoreRole.OPERATOR))
                await conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                async with conn:
                    while not over.is_set():
                        for _ in range(2):
                            row = await (await conn.execute("select count(*) from exchange")).fetchone()
                            counts.append(int(row[0]) if row else -1)
                            await asyncio.sleep(0.01)
                        await conn.rollback()
                        assert counts[-1] == counts[-2]

            counting = asyncio.create_task(count())
            sweepers = [asyncio.create_task(months.prepare_months(store)) for _ in range(2)]
            await record(store, *[NOW] * 50)
            await asyncio.gather(*sweepers)
            over.set()
            await counting
            assert counts == sorted(counts)
            assert await places(store) == {f"exchange_{THIS_MONTH}": 100, f"body_{THIS_MONTH}": 100}

    asyncio.run(scene())


def test_a_row_on_its_way_into_the_default_partition_goes_to_the_month_that_just_came(fresh_store: StoreUrls) -> None:
    """PostgreSQL refuses such a row; the recorder says it again, and nobody hears of it."""
    without_months(fresh_store)

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            with psycopg.connect(fresh_store.superuser_url) as other:
                other.execute("set search_path = shipworthy")
                other.execute("lock table exchange_default in access exclusive mode")
                recording = asyncio.create_task(record(store, NOW))
                for _ in range(200):
                    await asyncio.sleep(0.02)
                    if other.execute("select from pg_locks where not granted").rowcount:
                        break
                other.execute("select prepare_partitions(0)")
            await recording
            assert (await places(store))[f"exchange_{THIS_MONTH}"] == 1

    asyncio.run(scene())


def test_whoever_reads_for_long_delays_the_months_and_nothing_else(fresh_store: StoreUrls) -> None:
    """A backup holds every table for hours: the sweeper says so, and settles what the dead left all the same."""
    without_months(fresh_store)

    async def scene() -> None:
        said: list[Observation] = []
        op = Op(Kind.JOB, SystemClock(), said.append)
        async with Store(fresh_store.url) as store:
            await record(store, NOW)
            sweeper = StoreSweeper(store, VAULT)
            with psycopg.connect(fresh_store.superuser_url) as reading:
                reading.execute("select count(*) from shipworthy.exchange")
                await sweep(op, sweeper)
            (told,) = [seen for seen in said if isinstance(seen, Lifecycle)]
            assert told.detail.startswith("not now: store.lock_timeout")
            await sweep(op, StoreSweeper(store, VAULT))
            assert await places(store) == {f"exchange_{THIS_MONTH}": 1, f"body_{THIS_MONTH}": 1}

    asyncio.run(scene())


def test_only_the_operator_mends(fresh_store: StoreUrls) -> None:
    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with store.tenant("northwind") as conn:
                    await conn.execute("select mend_partitions(0, 1)")

    asyncio.run(scene())


def test_counters_go_with_their_rows(fresh_store: StoreUrls) -> None:
    """A day's budget of an end user goes when the day's rows do; what is still held, and what is in force, stays."""

    async def scene() -> list[str]:
        async with Store(fresh_store.url) as store:
            with psycopg.connect(fresh_store.superuser_url) as conn:
                conn.execute(
                    "insert into shipworthy.counter (tenant, key, period, period_start, cap_nano, charged_nano, held_nano)"
                    " values"
                    " ('t', 'end_user=old', 'day', now() - interval '40 days', 10, 5, 0),"
                    " ('t', 'end_user=held', 'day', now() - interval '40 days', 10, 5, 1),"
                    " ('t', 'end_user=new', 'day', now() - interval '2 days', 10, 5, 0),"
                    " ('t', 'tenant', 'year', now() - interval '300 days', 10, 5, 0)"
                )
            await expire(an_op(), StoreSweeper(store, VAULT), retention_days=30, bodies_days=30)
            async with store.operator() as conn:
                return [key for (key,) in await (await conn.execute("select key from counter order by key")).fetchall()]

    assert asyncio.run(scene()) == ["end_user=held", "end_user=new", "tenant"]
