"""What a store that cannot, or an entry that cannot be stored, does to everybody else: nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from msgspec import structs

from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import LedgerBounds, PostgresLedger
from shipworthy.adapters.store.pool import Bounds, Store, StoreRole
from shipworthy.adapters.store.recorder import ENTRY_BYTES, PostgresRecorder, RecorderBounds
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.builders import a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.exchange import Bodies
from shipworthy.model.observation import Failed, Observation, StoreDegraded
from shipworthy.ports import Entry

TENANT = "northwind"
KEYRING = Keyring((Kek("k", bytes(32)),), bytes(32))
FULL = """
create function full_disk() returns trigger language plpgsql as
$$ begin raise exception 'could not extend file: no space left on device' using errcode = 'disk_full'; end $$;
create trigger full_disk before insert on body_default for each row execute function full_disk();
"""


def an_entry(**changes: object) -> Entry:
    return Entry(a_row(an_op(), TENANT, **changes), None, None, None)


@asynccontextmanager
async def recording(url: str, **bounds: object) -> AsyncIterator[tuple[Store, PostgresRecorder, list[Observation]]]:
    observed: list[Observation] = []
    async with Store(url) as store:
        recorder = PostgresRecorder(store, Vault(KEYRING), observed.append, RecorderBounds(**bounds))
        try:
            yield store, recorder, observed
        finally:
            await recorder.close(0.2)


async def count(store: Store, table: str = "exchange") -> int:
    async with store.operator() as conn:
        found = await (await conn.execute(f"select count(*) from {table}")).fetchone()
    return int(found[0])


def test_an_entry_that_cannot_be_stored_fails_alone(fresh_store) -> None:
    """Its caller hears why, the rest of its batch is committed, and it is observed."""

    async def scene() -> None:
        async with recording(fresh_store.url) as (store, recorder, observed):
            entries = [an_entry() for _ in range(40)]
            bad = an_entry(charged_nano=2**70)
            acts = [recorder.record(entry) for entry in (*entries[:20], bad, *entries[20:])]
            answers = await asyncio.gather(*acts, return_exceptions=True)
            failed = [answer for answer in answers if answer is not None]
            assert len(failed) == 1
            assert isinstance(answers[20], StoreUnavailable)
            assert "cannot be stored" in str(answers[20])
            assert [said.exchange_id for said in observed if isinstance(said, Failed)] == [str(bad.row.id)]
            assert await count(store) == 40

    asyncio.run(scene())


def test_a_batch_that_was_half_said_before_counts_once(fresh_store) -> None:
    """Rows that are there stay as they are; the new ones, and only they, are charged."""
    claim = a_claim("tenant", 10**9)

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            ledger = PostgresLedger(store, "w")
            entries = []
            for _ in range(4):
                op = an_op()
                hold = await ledger.reserve(op, TENANT, [claim], an_estimate(100), lambda: b"")
                charge = a_charge(hold, 10)
                entries.append(Entry(a_settled_row(op, hold, charge), Bodies(b"q", b"a", False), hold, charge))
            writer = BatchWriter(store.conninfo(StoreRole.RECORDER), Vault(KEYRING))
            for batch, new in [(entries[:2], 2), (entries[1:], 2), (entries, 0), (entries[:1], 0)]:
                assert len(await asyncio.to_thread(writer.write, batch)) == new
            writer.disconnect()
            async with store.operator() as conn:
                found = await conn.execute("select charged_nano, held_nano from counter")
                assert await found.fetchall() == [(40, 0)]
            assert await count(store, "body") == 8

    asyncio.run(scene())


def test_a_full_disk_is_named_and_nothing_is_lost(fresh_store) -> None:
    """53100 while a body is written: `record` says so, the entry waits, and is written when there is room again."""
    row = structs.replace(a_row(an_op(), TENANT), arrived_unix_ns=1)  # lands in the default partition
    entry = Entry(row, Bodies(b"question", b"answer", False), None, None)

    async def scene() -> None:
        with psycopg.connect(fresh_store.superuser_url, autocommit=True, options="-c search_path=shipworthy") as conn:
            conn.execute(FULL)
            async with recording(fresh_store.url, record_s=0.4) as (store, recorder, observed):
                with pytest.raises(StoreUnavailable, match=r"^store\.disk_full: .*no space left.*waited 0\.4 s"):
                    await recorder.record(entry)
                assert recorder.waiting == 1
                assert await count(store) == 0
                degraded = [said for said in observed if isinstance(said, StoreDegraded)]
                assert len(degraded) == 1
                assert degraded[0].reason.startswith("store.disk_full")
                conn.execute("drop trigger full_disk on body_default")
                assert await recorder.close(10) == 0
                assert await count(store) == await count(store, "body") / 2 == 1

    asyncio.run(scene())


@pytest.mark.parametrize("bound", [{"queue_entries_max": 5}, {"queue_bytes_max": 5 * (ENTRY_BYTES + 1_000)}])
def test_the_queue_is_bounded_in_entries_and_in_bytes(tmp_path: Path, bound: dict[str, int]) -> None:
    """With the store away the queue fills, then says so at once, to those who wait and to those who don't."""

    async def scene() -> None:
        async with recording(f"postgresql://x@/none?host={tmp_path}", **bound) as (_, recorder, observed):
            with pytest.raises(StoreUnavailable, match=r"^store\.queue_full: \d entries wait"):  # noqa: PT012 - at some put
                for _ in range(100):
                    recorder.enqueue(Entry(a_row(an_op(), TENANT), Bodies(bytes(900), b"", False), None, None))
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="queue_full"):
                await recorder.record(Entry(a_row(an_op(), TENANT), Bodies(bytes(900), b"", False), None, None))
            assert time.monotonic() - began < 0.2
            waiting = recorder.waiting
            assert waiting in (4, 5)
            assert await recorder.close(0.2) == waiting
            assert observed[-1].waiting == waiting
            with pytest.raises(StoreUnavailable, match="draining"):
                recorder.enqueue(an_entry())

    asyncio.run(scene())


def test_a_drain_writes_what_was_enqueued(fresh_store) -> None:
    async def scene() -> None:
        async with recording(fresh_store.url, gather_ms=5_000.0) as (store, recorder, _):
            for _ in range(300):
                recorder.enqueue(an_entry())
            assert await recorder.close(10) == 0
            assert await count(store) == 300

    asyncio.run(scene())


def test_a_locked_counter_keeps_nobody_for_longer_than_the_bound(fresh_store) -> None:
    """Somebody's transaction sits on a row: reserve says so by name, and the next one is served when it is gone."""
    claim = a_claim("tenant", 10**9)

    async def scene() -> None:
        async with Store(fresh_store.url, Bounds(lock_ms=300)) as store:
            ledger = PostgresLedger(store, "w")
            await ledger.reserve(an_op(), TENANT, [claim], an_estimate(1), lambda: b"")
            with psycopg.connect(fresh_store.superuser_url, options="-c search_path=shipworthy") as conn:
                conn.execute("select from counter for update")
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match=r"^store\.lock_timeout: "):
                    await ledger.reserve(an_op(), TENANT, [claim], an_estimate(1), lambda: b"")
                assert time.monotonic() - began < 2
            await ledger.reserve(an_op(), TENANT, [claim], an_estimate(1), lambda: b"")

    asyncio.run(scene())


def test_more_callers_than_connections_wait_their_turn_or_hear_so(fresh_store) -> None:
    """Both bounds of the pool: how many may wait, and for how long."""

    async def scene() -> None:
        async with Store(fresh_store.url, Bounds(app_connections_max=1, waiting_max=3, wait_s=0.3)) as store:

            async def hold_on() -> None:
                async with store.tenant(TENANT) as conn:
                    await conn.execute("select pg_sleep(0.5)")

            answers = await asyncio.gather(*(hold_on() for _ in range(8)), return_exceptions=True)
            said = [str(answer).split(":", 1)[0] for answer in answers if isinstance(answer, StoreUnavailable)]
            assert answers.count(None) >= 1
            assert set(said) == {"store.pool_wait", "store.pool_queue"}
            assert len(said) == 8 - answers.count(None)

    asyncio.run(scene())


def test_a_cancelled_reservation_leaves_its_connection_usable(fresh_store) -> None:
    """Clients leave at any moment: no transaction stays open, no connection is lost."""
    claim = a_claim("tenant", 10**9)

    async def scene() -> None:
        async with Store(fresh_store.url, Bounds(app_connections_max=2)) as store:
            ledger = PostgresLedger(store, "w", LedgerBounds())
            for number in range(30):
                task = asyncio.create_task(ledger.reserve(an_op(), TENANT, [claim], an_estimate(1), lambda: b""))
                await asyncio.sleep(number / 10_000)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            for _ in range(4):
                await ledger.reserve(an_op(), TENANT, [claim], an_estimate(1), lambda: b"")

    asyncio.run(scene())
