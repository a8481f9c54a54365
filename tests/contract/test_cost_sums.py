"""Cost reports read sums, and equal the rows at every moment: whoever writes, sums, corrects or expires meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipworthy.adapters.store import migrate
from shipworthy.adapters.store.acts import moment
from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.costs import UNITS, Cut, StoreCostSums, after, apart, began, cost
from shipworthy.adapters.store.exchanges import StoreExchanges
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.rows import encode
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.finops import Span
from shipworthy.kit.memory_record import MemoryExchanges
from shipworthy.kit.rows import spent
from shipworthy.model.exchange import Row
from shipworthy.model.money import Component
from shipworthy.model.op import uuid7
from shipworthy.model.reading import EVERY_TENANT, By, CostAsked, CostLine
from shipworthy.ports import Entry

KEYRING = Keyring((Kek("k-test", b"k" * 32),), b"p" * 32)
HOUR_NS = 3_600 * 10**9
BEGAN = datetime(2026, 10, 24, 18, tzinfo=UTC)  # clocks go back in Berlin in the following night
HOURS = 54
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe")
Lines = dict[tuple[str, str], CostLine]


class Ground:
    """One store with what writes, sums and reads it, and a mirror of what was written."""

    def __init__(self, store: Store) -> None:
        vault = Vault(KEYRING)
        self.store = store
        self.writer = BatchWriter(store.conninfo(StoreRole.RECORDER), vault)
        self.exchanges = StoreExchanges(store, vault)
        self.sweeper = StoreSweeper(store, vault)
        self.mirror = MemoryExchanges()

    def put(self, *rows: Row) -> None:
        assert self.writer.write([Entry(row, None, None, None) for row in rows]) == {row.id for row in rows}
        self.mirror.rows += rows

    async def sum(self, now: datetime | None = None) -> None:
        sums = StoreCostSums(self.store, (lambda: now) if now else None)
        while await sums.sum():
            pass

    async def check(self, *tenants: str, since_ns: int = 0, until_ns: int = 0, by: Sequence[By] = tuple(By)) -> None:
        """By tenant and by operator, each dimension says what the rows say."""
        for each in by:
            asked = CostAsked(by=each, since_unix_ns=since_ns, until_unix_ns=until_ns)
            expected = by_name(await self.mirror.cost(EVERY_TENANT, asked), tenants)
            assert by_name(await self.exchanges.cost(EVERY_TENANT, asked), tenants) == expected
            for tenant in tenants:
                ours = {key: line for key, line in expected.items() if key[0] == tenant}
                assert by_name(await self.exchanges.cost(tenant, asked), (tenant,)) == ours


def by_name(lines: Sequence[CostLine], tenants: Sequence[str]) -> Lines:
    return {(line.tenant, line.name): line for line in lines if line.tenant in tenants}


@contextlib.asynccontextmanager
async def ground(url: str) -> AsyncIterator[Ground]:
    async with asyncio.timeout(100), Store(url) as store:
        made = Ground(store)
        try:
            yield made
        finally:
            made.writer.disconnect()


def two_tenants() -> tuple[str, str]:
    mark = secrets.token_hex(4)
    return f"ours-{mark}", f"theirs-{mark}"


def at_ns(hours: float) -> int:
    """So long after BEGAN."""
    return int(BEGAN.timestamp()) * 10**9 + int(hours * HOUR_NS)


# Moments lie close to where slots, hours and days begin more often than not.
moments = st.one_of(
    st.builds(
        lambda slot, off: at_ns(0) + slot * HOUR_NS // 12 + off,
        st.integers(0, HOURS * 12),
        st.sampled_from([-1_000_000_000, -1_000, -1, 0, 1, 999, 1_000, 60 * 10**9]),
    ),
    st.integers(at_ns(0), at_ns(HOURS)),
    st.sampled_from([-30 * 24, -23 * 24, -9 * 24 - 12, -24, 7 * 24 + 6, 16 * 24, 40 * 24]).map(at_ns),
)
drawn = st.tuples(moments, st.integers(0, 10**6), st.booleans())
puts = st.tuples(st.just("put"), st.lists(drawn, min_size=1, max_size=12))
sums = st.tuples(st.just("sum"), st.one_of(st.integers(0, HOURS + 1), st.sampled_from([12 * 24, 60 * 24])))
asks = st.tuples(
    st.just("ask"),
    st.sampled_from(By),
    st.datetimes(BEGAN.replace(tzinfo=None) - timedelta(days=35), BEGAN.replace(tzinfo=None) + timedelta(hours=HOURS)),
    st.one_of(
        st.integers(0, HOURS * 3600 * 10**6),
        st.integers(0, HOURS * 60).map(lambda minutes: minutes * 60 * 10**6),
        st.integers(0, 80).map(lambda days: days * 24 * 3600 * 10**6),
    ),
    st.sampled_from(ZONES),
    st.booleans(),  # whole minutes of the wall clock
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.one_of(puts, sums, asks), min_size=4, max_size=14))
def test_whatever_was_written_and_summed_reports_equal_the_rows(store_urls, story) -> None:
    """Any interleaving, any span of any zone, any dimension, by tenant and by operator."""

    async def play() -> None:
        ours, theirs = two_tenants()
        async with ground(store_urls.url) as here:
            for act, *said in story:
                match act, said:
                    case "put", [many]:
                        here.put(*(spent(ours if mine else theirs, at, seed) for at, seed, mine in many))
                    case "sum", [hours]:
                        await here.sum(BEGAN + timedelta(hours=hours))
                    case "ask", [by, since, lasts_us, zone, whole]:
                        begin = since.replace(second=0, microsecond=0) if whole else since
                        begin = begin.replace(tzinfo=ZoneInfo(zone))
                        span = Span(begin, begin + timedelta(microseconds=lasts_us))
                        await here.check(
                            ours, theirs, since_ns=span.since_unix_ns, until_ns=max(span.until_unix_ns, 1), by=[by]
                        )
            await here.check(ours, theirs)

    asyncio.run(play())


@given(st.integers(0, 800 * 24 * HOUR_NS), st.integers(1, 800 * 24 * HOUR_NS))
def test_a_span_is_cut_into_whole_units_and_ends(since: int, lasts: int) -> None:
    """Each moment lies in one stretch only, and a unit is asked for where it lies within the span as a whole."""
    cut = Cut.of(since, since + lasts)
    assert (cut.since, cut.until) == (since, since + lasts)
    assert since <= cut.hour_from <= cut.hour_until <= cut.until
    if cut.hour_from < cut.hour_until:
        assert cut.hour_from % HOUR_NS == cut.hour_until % HOUR_NS == 0
        assert cut.hour_from - since < HOUR_NS > cut.until - cut.hour_until
    else:
        assert cut.until - since < 2 * HOUR_NS
    nested = cut.nested()
    pieces = sorted((each for each in apart(nested) if each.since < each.until), key=lambda each: each.since)
    for one, next_one in pairwise([*pieces, None]):
        assert next_one is None or one.until == next_one.since
        assert one.span == "hour" or (began(one.span, one.since), began(one.span, one.until)) == (one.since, one.until)
    if pieces:
        assert (pieces[0].since, pieces[-1].until) == (moment(cut.hour_from), moment(cut.hour_until))
    most = {"hour": 5, "quarter": 3, "day": 7, "week": 3}  # more would make one more of the next longer unit
    for each in pieces:
        units, at = 0, each.since
        while at < each.until:
            at, units = (at + timedelta(hours=1) if each.span == "hour" else after(each.span, at)), units + 1
        assert at == each.until
        assert each.span == "month" or units <= 2 * most[each.span]


def test_units_begin_and_end_alike_in_the_store_and_in_the_reader(store_urls) -> None:
    asked = "select h, u.at, u.ends from generate_series(%s, %s, interval '1 hour') h cross join unit_of(%s, h) u"
    since, until = datetime(2027, 12, 1, tzinfo=UTC), datetime(2028, 4, 2, tzinfo=UTC)
    options = "-c search_path=shipworthy,public -c timezone=Asia/Kolkata"
    with psycopg.connect(store_urls.migrate_url, options=options) as conn:
        for span in UNITS:
            for at, begins, ends in conn.execute(asked, (since, until, span)).fetchall():
                expected = began(span, at.astimezone(UTC))
                assert (begins, ends) == (expected, after(span, expected))


def test_late_rows_are_added_and_a_slot_is_summed_once(fresh_store) -> None:
    async def play() -> None:
        ours, theirs = two_tenants()
        async with ground(fresh_store.url) as here:
            for seed in range(3):
                here.put(*(spent(tenant, at_ns(n / 7), seed * 100 + n) for n in range(20) for tenant in (ours, theirs)))
                await here.check(ours, theirs)
                await here.sum()
                await here.check(ours, theirs)
                await here.sum()
            async with here.store.operator() as conn:
                cursor = await conn.execute(
                    "select (select count(*) from cost_late), (select count(*) from cost_slot where not summed),"
                    " (select sum(parts) from cost_sum where dimension = 'tenant' and span = 'month'),"
                    " (select sum(1 + jsonb_array_length(charge_lines)) from exchange)"
                )
                late, still_open, parts, expected = await cursor.fetchone()
            assert (late, still_open) == (0, 0)
            assert parts == expected

    asyncio.run(play())


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_who_writes_waits_for_no_sum(fresh_store, ends: str) -> None:
    """What ends a minute after its slot, as a long stream does, comes while the slot is summed: its batch must not wait."""

    async def play() -> None:
        ours, theirs = two_tenants()
        async with ground(fresh_store.url) as here:
            here.put(spent(ours, at_ns(0), 1), spent(theirs, at_ns(0), 2))
            with psycopg.connect(fresh_store.superuser_url, options="-c search_path=shipworthy") as job:
                slot = job.execute("select slot_of(%s)", (BEGAN,)).fetchone()[0]
                job.execute("select pg_advisory_xact_lock(slot_lock(%s, %s))", (ours, slot))
                here.put(spent(ours, at_ns(0) + 1, 3), spent(theirs, at_ns(0) + 1, 4))
                await here.check(ours, theirs)
                job.execute("select add_costs(1, %s, %s, '{}', '{}', '{}')", ([ours], [slot]))
                job.execute("update cost_slot set summed = true where tenant = %s and at = %s", (ours, slot))
                here.put(spent(ours, at_ns(0) + 2, 5))
                await here.check(ours, theirs)
                job.execute(ends)
            for _ in range(2):
                await here.check(ours, theirs)
                await here.sum()
            await here.check(ours, theirs)

    asyncio.run(play())


# ------------------------------------------------------------------------------------------------ many at once


WORKER = """
import sys
from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.rows import spent
from shipworthy.ports import Entry

url, tenant, began_ns, first = sys.stdin.read().split()
writer = BatchWriter(Store(url).conninfo(StoreRole.RECORDER), Vault(Keyring((Kek("k-test", b"k" * 32),), b"p" * 32)))

def entry(minutes, seed):
    return Entry(spent(tenant, int(began_ns) + minutes * 60 * 10**9, int(first) + seed), None, None, None)

for batch in range(60):
    entries = [entry((batch * 7 + n) % 65, batch * 100 + n) for n in range(8)]
    assert len(writer.write(entries)) == 8
    if batch % 5 == 0:  # an answer was lost: some are said again
        more = entry(30, batch * 100 + 50)
        assert writer.write([*entries[:3], more]) == {more.row.id}
writer.disconnect()
"""

MOMENT = """
select count(*), coalesce(sum(charged_nano), 0) from exchange where tenant = %s
"""


def test_while_workers_write_and_the_job_sums_every_snapshot_is_exact(fresh_store) -> None:
    """Three processes write, two jobs sum what is being written, a reader compares both in one snapshot, over and over."""
    tenant, _ = two_tenants()
    ahead = BEGAN + timedelta(hours=HOURS)  # the job takes every slot for past: rows are late all the time
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
        for _ in range(3)
    ]

    async def summing(here: Ground) -> None:
        sums = StoreCostSums(here.store, lambda: ahead)
        while True:
            await sums.sum()
            await asyncio.sleep(0.01)

    async def compared(here: Ground, by: By) -> int:
        asked = CostAsked(by=by, since_unix_ns=0, until_unix_ns=0, tenant=tenant)
        async with here.store.connection(StoreRole.OPERATOR) as conn:
            await conn.execute("begin isolation level repeatable read")
            count, nano = await (await conn.execute(MOMENT, (tenant,))).fetchone()
            lines = await cost(conn, asked)
            await conn.execute("commit")
        assert sum(line.exchanges for line in lines) == count
        assert sum(line.charged_nano for line in lines) == nano
        return count

    async def play() -> None:
        async with ground(fresh_store.url) as here:
            jobs = [asyncio.create_task(summing(here)) for _ in range(2)]
            seen = set()
            while any(worker.poll() is None for worker in workers):
                for by in By:
                    seen.add(await compared(here, by))
                assert not any(job.done() for job in jobs), [job for job in jobs if job.done()]
            assert len(seen) > 5
            assert await compared(here, By.MODEL) == 3 * (60 * 8 + 12)
            for job in jobs:
                job.cancel()

    for n, worker in enumerate(workers):
        worker.stdin.write(f"{fresh_store.url} {tenant} {at_ns(0)} {n * 10**6}")
        worker.stdin.close()
    try:
        asyncio.run(play())
    finally:
        for worker in workers:
            worker.kill()
            said = worker.stderr.read()
            worker.stderr.close()
            assert worker.wait(20) == 0, said


# ------------------------------------------------------------------------------------------------ retention, hands, upgrades


def test_what_expires_leaves_the_sums_too(fresh_store) -> None:
    """Row by row and month by month: after each step the report equals what is left."""

    async def play() -> None:
        ours, theirs = two_tenants()
        async with ground(fresh_store.url) as here:
            async with here.store.connection(StoreRole.OPERATOR) as conn:
                await conn.execute("select prepare_partitions(2, '2026-01-01')")
            dates = [datetime(2026, month, day, 9, 55, tzinfo=UTC) for month in (1, 2, 3) for day in (1, 14, 28)]
            rows = [
                spent(tenant, int((date + timedelta(minutes=n)).timestamp()) * 10**9, n)
                for date in dates for n in range(9) for tenant in (ours, theirs)
            ]  # fmt: skip
            here.put(*(row for n, row in enumerate(rows) if n % 3))
            await here.sum()
            here.put(*rows[::3])  # late: slots are opened while these are not added yet
            before = datetime(2026, 2, 14, 9, 57, tzinfo=UTC)
            for limit in (7, 7, 1_000, 1_000):
                await here.sweeper.expire(before, before, limit)
                async with here.store.operator() as conn:
                    left = {id for (id,) in await (await conn.execute("select id from exchange")).fetchall()}
                here.mirror.rows = [row for row in here.mirror.rows if row.id in left]
                await here.check(ours, theirs)
                await here.sum()
                await here.check(ours, theirs)
            assert {moment(row.arrived_unix_ns).month for row in here.mirror.rows} == {2, 3}
            assert min(moment(row.arrived_unix_ns) for row in here.mirror.rows) == before
            async with here.store.operator() as conn:
                assert await (await conn.execute("select from cost_sum where at < '2026-02-01'")).fetchall() == []

    asyncio.run(play())


def test_nobody_edits_the_sums(fresh_store) -> None:
    """No role of the server writes them; whoever deletes rows by hand is told how not to make the report lie."""

    async def play() -> None:
        ours, _ = two_tenants()
        async with ground(fresh_store.url) as here:
            here.put(spent(ours, at_ns(0), 1))
            await here.sum()
            for reach in (here.store.operator, lambda: here.store.tenant(ours), lambda: here.store.recording(ours)):
                for table in ("cost_sum", "cost_slot", "cost_late", "cost_sum_default"):
                    for statement in ("update {} set tenant = 'x'", "delete from {}", "insert into {} default values"):
                        with pytest.raises(psycopg.errors.InsufficientPrivilege):
                            async with reach() as conn:
                                await conn.execute(statement.format(table))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with here.store.tenant(ours) as conn:
                    await conn.execute("select sum_costs(1)")
            async with here.store.tenant("nobody") as conn:
                assert await (await conn.execute("select from cost_sum")).fetchall() == []
                assert await (await conn.execute("select from cost_slot")).fetchall() == []
            await here.check(ours)

    asyncio.run(play())
    with (
        psycopg.connect(fresh_store.migrate_url, options="-c search_path=shipworthy,public") as conn,
        pytest.raises(psycopg.errors.RaiseException, match="summed"),
    ):
        conn.execute("delete from exchange")


def test_components_count_alike_in_the_store_and_in_the_model(store_urls) -> None:
    with psycopg.connect(store_urls.migrate_url, options="-c search_path=shipworthy,public") as conn:
        for component in Component:
            sides = conn.execute("select is_input(%s), is_output(%s)", (component, component)).fetchone()
            assert sides == (component.is_input, component.is_output)


def test_what_was_recorded_before_the_sums_is_exact_at_once_and_summed_later(empty_store) -> None:
    """An upgrade: rows of the release before, and workers of it that still write while this release runs."""
    login = migrate.login_of(empty_store.url)
    migrate.apply(empty_store.migrate_url, login, migrations=[each for each in migrate.shipped() if each.number < 23])
    ours, theirs = two_tenants()
    rows = [spent(tenant, at_ns(n / 3), n) for n in range(40) for tenant in (ours, theirs)]

    def as_before(*written: Row) -> None:
        with psycopg.connect(empty_store.superuser_url, options="-c search_path=shipworthy,public") as conn:
            conn.execute("set role shipworthy_recorder")
            for row in written:
                conn.execute("select set_config('app.tenant', %s, true)", (row.tenant,))
                conn.execute("select insert_exchanges(%s::jsonb)", (f"[{encode(row).decode()}]",))

    async def play() -> None:
        async with ground(empty_store.url) as here:
            here.mirror.rows += rows
            await here.check(ours, theirs)
            await here.sum()
            await here.check(ours, theirs)
            more = [spent(ours, at_ns(n), 1_000 + n) for n in range(9)]
            as_before(*more)
            here.mirror.rows += more
            await here.check(ours, theirs)
            await here.sum()
            await here.check(ours, theirs)

    as_before(*rows)
    migrate.apply(empty_store.migrate_url, login)
    asyncio.run(play())


def test_corrections_count_at_the_exchange_that_they_correct(fresh_store, tenant_name: Callable[[str], str]) -> None:
    """Rows + corrections, whether or not the rows are summed."""
    tenant = tenant_name("corrected")
    row = spent(tenant, at_ns(1), 4)
    correct = """
      select state from correct(%(tenant)s, %(id)s, %(exchange)s, %(ns)s, now(), 1, 'a', 'wrong price', 'invoice', '', 12,
        '[{"model": "large", "component": "input_tokens", "quantity": 3, "amount_nano": 10, "attempt": 0}]', %(token)s, null)
    """

    async def play() -> None:
        async with ground(fresh_store.url) as here:
            here.put(row)
            for times in (1, 2):
                async with here.store.operator() as conn:
                    named = {"tenant": tenant, "id": uuid7(1), "exchange": row.id, "token": str(times)}
                    named["ns"] = row.arrived_unix_ns
                    assert await (await conn.execute(correct, named)).fetchone() == ("applied",)
                for by in By:
                    asked = CostAsked(by=by, since_unix_ns=at_ns(0), until_unix_ns=at_ns(24))
                    rows = by_name(await here.mirror.cost(tenant, asked), [tenant])
                    lines = by_name(await here.exchanges.cost(tenant, asked), [tenant])
                    assert sum(line.exchanges for line in lines.values()) == 1
                    more = sum(line.charged_nano for line in lines.values()) - row.charged_nano
                    assert more == 12 * times
                    assert (
                        sum(line.input_tokens for line in lines.values())
                        - sum(line.input_tokens for line in rows.values())
                        == 3 * times
                    )
                    if by is By.MODEL:
                        large = rows[tenant, "large"].charged_nano if (tenant, "large") in rows else 0
                        assert lines[tenant, "large"].charged_nano >= large + 10 * times
                await here.sum()

    asyncio.run(play())
