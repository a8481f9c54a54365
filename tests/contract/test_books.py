"""The books in the store: counters are the sum of what is behind them, and whoever tampers with one is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from msgspec import structs

from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.books import StoreBooks
from shipworthy.adapters.store.corrections import StoreCorrections
from shipworthy.adapters.store.keyring import open_keyring
from shipworthy.adapters.store.ledger import PostgresLedger
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.builders import a_charge, a_settled_row, an_estimate, an_op
from shipworthy.model.books import Balance, Excuse
from shipworthy.model.correction import Applied, Correction, CorrectionLine, Verdict
from shipworthy.model.ledger import Claim, Hold
from shipworthy.model.money import Component
from shipworthy.model.op import uuid7
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.ports import AdminAct, Entry

NOW = datetime.now(UTC)
MONTH = datetime(NOW.year, NOW.month, 1, tzinfo=UTC)
NEXT = (MONTH + timedelta(days=32)).replace(day=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def claim(key: str, cap_nano: int = 10**12, **limits: int) -> Claim:
    wanted = {"requests_per_min": 0, "tokens_per_min": 0, "concurrent": 0} | limits
    return Claim(key=key, cap_nano=cap_nano, period="month", period_start=MONTH, period_end=NEXT, **wanted)


@dataclass
class Shop:
    """A store with a ledger, a writer, and the books over them."""

    store: Store
    ledger: PostgresLedger
    writer: BatchWriter
    books: StoreBooks
    corrections: StoreCorrections
    tenant: str
    owner_url: str

    async def spend(self, claims: list[Claim], amount_nano: int, **changes: object) -> UUID:
        op = an_op()
        hold = await self.ledger.reserve(op, self.tenant, claims, an_estimate(10**6), bytes)
        charge = a_charge(hold, amount_nano)
        row = a_settled_row(op, hold, charge, **changes)
        assert await asyncio.to_thread(self.writer.write, [Entry(row, None, hold, charge)]) == {op.id}
        return op.id

    async def hold(self, claims: list[Claim]) -> Hold:
        return await self.ledger.reserve(an_op(), self.tenant, claims, an_estimate(777), bytes)

    async def balance(
        self, since: datetime | None = None, rows_since: datetime = LONG_AGO, limit: int = 100
    ) -> Balance:
        return await self.books.balance(self.tenant, since, rows_since, limit)

    def tamper(self, statement: str) -> None:
        with psycopg.connect(self.owner_url, autocommit=True) as conn:
            conn.execute("set search_path = shipworthy")
            conn.execute(statement.replace("TENANT", f"'{self.tenant}'"))


def a_correction(tenant: str, exchange_id: UUID, nano: int, token: str, arrived_unix_ns: int) -> Correction:
    now_ns = int(datetime.now(UTC).timestamp()) * 10**9
    return Correction(
        id=uuid7(now_ns), tenant=tenant, exchange_id=exchange_id, arrived_unix_ns=arrived_unix_ns, at_unix_ns=now_ns,
        actor="cli:ann", reason="the invoice says so", source="invoice 2026-11", provider="openai", nano=nano, token=token,
        lines=(CorrectionLine("small", "gpt-4.1-mini", Component.OUTPUT, -3, nano),),
    )  # fmt: skip


def an_act(tenant: str, exchange_id: UUID) -> AdminAct:
    now_ns = int(datetime.now(UTC).timestamp()) * 10**9
    return AdminAct(
        id=uuid7(now_ns), at_unix_ns=now_ns, actor="cli:ann", act="cost.correct", tenant=tenant, target=str(exchange_id),
        facts={},
    )  # fmt: skip


@pytest.fixture
def run(
    fresh_store, tmp_path: Path, tenant_name: Callable[[str], str]
) -> Callable[[Callable[[Shop], Awaitable[None]]], None]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Shop]:
        vault = Vault(open_keyring(tmp_path / "keys"))
        async with Store(fresh_store.url) as store:
            writer = BatchWriter(store.conninfo(StoreRole.RECORDER), vault)
            try:
                yield Shop(
                    store, PostgresLedger(store, "worker-1"), writer, StoreBooks(store), StoreCorrections(store),
                    tenant_name("books"), fresh_store.superuser_url,
                )  # fmt: skip
            finally:
                writer.disconnect()

    def play(scene: Callable[[Shop], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60), opened() as shop:
                await scene(shop)

        asyncio.run(bounded())

    return play


def test_counters_are_what_is_behind_them(run) -> None:
    async def scene(shop: Shop) -> None:
        levels = [claim("team=a", concurrent=10), claim("tenant")]
        for amount in (1, 500, 12_345):
            await shop.spend(levels, amount)
        await shop.spend([claim("tenant")], 0)
        await shop.hold(levels)
        found = await shop.balance()
        assert found.differences == ()
        assert (found.counters, found.exchanges, found.charged_nano, found.holds) == (2, 6, 2 * 12_846, 1)

    run(scene)


@pytest.mark.parametrize(
    ("tampered", "what", "gap"),
    [
        ("update counter set charged_nano = charged_nano + 7 where tenant = TENANT and key = 'tenant'", "charged", 7),
        ("update counter set charged_nano = charged_nano - 1 where tenant = TENANT and key = 'tenant'", "charged", -1),
        ("update counter set held_nano = held_nano + 3 where tenant = TENANT and key = 'tenant'", "held", 3),
        ("update counter set leased_nano = 5 where tenant = TENANT and key = 'tenant'", "leased", 5),
        ("update counter set suspended_nano = 5 where tenant = TENANT and key = 'tenant'", "suspended", 5),
        ("update pace set in_flight = in_flight + 2 where tenant = TENANT", "in flight", 2),
        ("update pace set leased_places = 4 where tenant = TENANT", "leased places", 4),
        (
            "update exchange set charged_nano = charged_nano - 9 where tenant = TENANT and charged_nano = 500",
            "charged",
            9,
        ),
        ("delete from hold where tenant = TENANT", "held", 777),
    ],
)
def test_whoever_tampers_is_found(run, tampered: str, what: str, gap: int) -> None:
    """An owner who edits a counter, a row or a hold by hand is told by level, period and both figures."""

    async def scene(shop: Shop) -> None:
        await shop.spend([claim("team=a", concurrent=10), claim("tenant")], 500)
        await shop.hold([claim("team=a", concurrent=10), claim("tenant")])
        assert (await shop.balance()).differences == ()
        shop.tamper(tampered)
        found = [each for each in (await shop.balance()).differences if each.what == what]
        assert {(each.counter or 0) - each.behind for each in found} == {gap}
        assert not any(each.excuse for each in found)
        if what == "charged":
            assert {(each.begins, each.ends) for each in found} == {(MONTH, NEXT)}
        others = await shop.books.balance("nobody", None, LONG_AGO, 10)
        assert others.differences == ()
        everyone = await shop.books.balance("", None, LONG_AGO, 1)
        assert everyone.differences[0].tenant == shop.tenant

    run(scene)


def test_a_counter_that_is_gone_is_found(run) -> None:
    async def scene(shop: Shop) -> None:
        await shop.spend([claim("tenant")], 500)
        shop.tamper("delete from counter where tenant = TENANT")
        (found,) = (await shop.balance()).differences
        assert (found.counter, found.behind, found.level, found.exchanges) == (None, 500, "tenant@month", 1)

    run(scene)


def test_what_proves_nothing_is_no_alarm(run) -> None:
    """Rows from before levels were kept, and rows that retention took, may explain that a counter holds more; never less."""

    async def scene(shop: Shop) -> None:
        await shop.spend([claim("tenant")], 500)
        shop.tamper(
            "update exchange set levels = '{}', recorded_at = recorded_at - interval '2 days' where tenant = TENANT"
        )
        (found,) = (await shop.balance()).differences
        assert (found.excuse, found.counter, found.behind) == (Excuse.BEFORE_LEVELS, 500, 0)
        shop.tamper("update counter set charged_nano = 501 where tenant = TENANT")
        (found,) = (await shop.balance()).differences
        assert found.excuse is Excuse.NONE
        shop.tamper("delete from exchange where tenant = TENANT")
        (found,) = (await shop.balance(rows_since=NOW)).differences
        assert found.excuse is Excuse.RETENTION
        (found,) = (await shop.balance()).differences
        assert found.excuse is Excuse.NONE

    run(scene)


def test_only_the_periods_that_are_asked_for(run) -> None:
    async def scene(shop: Shop) -> None:
        await shop.spend([claim("tenant")], 500)
        shop.tamper("update counter set charged_nano = 499 where tenant = TENANT")
        assert len((await shop.balance(since=NEXT - timedelta(seconds=1))).differences) == 1
        assert (await shop.balance(since=NEXT)).differences == ()
        assert (await shop.balance(limit=0)).more

    run(scene)


def test_a_zone_that_was_changed_in_the_middle_is_no_alarm(run) -> None:
    """Two periods of one level overlap then, and no row says which one it was charged to: they are compared together."""

    async def scene(shop: Shop) -> None:
        await shop.spend([claim("tenant")], 300)
        shifted = structs.replace(
            claim("tenant"), period_start=MONTH - timedelta(hours=1), period_end=NEXT - timedelta(hours=1)
        )
        await shop.spend([shifted], 40)
        found = await shop.balance()
        assert (found.counters, found.differences) == (2, ())
        shop.tamper("update counter set charged_nano = charged_nano + 1 where tenant = TENANT and charged_nano = 40")
        (found,) = (await shop.balance()).differences
        assert (found.counter, found.behind, found.begins) == (341, 340, MONTH - timedelta(hours=1))

    run(scene)


def test_a_live_system_gives_no_false_alarm(run) -> None:
    """While others spend, every look at the books is one moment."""

    async def scene(shop: Shop) -> None:
        levels = [claim("team=a", requests_per_min=10**6), claim("tenant")]

        async def spend() -> None:
            for amount in range(40):
                await shop.spend(levels, amount)

        spending = asyncio.create_task(spend())
        looks = 0
        while not spending.done():
            assert (await shop.balance()).differences == ()
            looks += 1
        await spending
        assert looks > 3

    run(scene)


# ------------------------------------------------------------------------------------------------ corrections


def test_a_correction_moves_the_counters_of_its_exchange(run) -> None:
    async def scene(shop: Shop) -> None:
        levels = [claim("team=a"), claim("tenant")]
        spent = await shop.spend(levels, 500)
        await shop.spend(levels, 100)
        made = a_correction(shop.tenant, spent, -200, "t-1", await arrival(shop, spent))
        applied = await shop.corrections.apply(made, 500, an_act(shop.tenant, spent))
        assert applied == Applied(Verdict.APPLIED, 300, ("team=a@month", "tenant@month"))
        found = await shop.balance()
        assert (found.differences, found.corrections, found.charged_nano) == ((), 2, 800)
        (stored,) = await shop.corrections.of(shop.tenant, [spent])
        assert stored == structs.replace(made, levels=("team=a@month", "tenant@month"))
        assert await shop.corrections.of("another", [spent]) == []
        async with shop.store.operator() as conn:
            acts = await (await conn.execute("select act, target, actor from admin_act")).fetchall()
        assert acts == [("cost.correct", str(spent), "cli:ann")]

    run(scene)


@pytest.mark.parametrize(
    ("nano", "expected", "token", "verdict", "comes_to"),
    [
        (-301, None, "t-2", Verdict.NEGATIVE, 300),
        (-300, None, "t-2", Verdict.APPLIED, 0),
        (-1, 500, "t-2", Verdict.MOVED, 300),
        (-1, 300, "t-2", Verdict.APPLIED, 299),
        (-1, None, "t-1", Verdict.KNOWN, 300),
        (10**12, None, "t-2", Verdict.APPLIED, 10**12 + 300),
    ],
)
def test_a_correction_is_refused_whole(
    run, nano: int, expected: int | None, token: str, verdict: Verdict, comes_to: int
) -> None:
    """Never below zero, never from another's figure, never twice; what is refused leaves nothing behind."""

    async def scene(shop: Shop) -> None:
        spent = await shop.spend([claim("tenant")], 500)
        at_ns = await arrival(shop, spent)
        first = a_correction(shop.tenant, spent, -200, "t-1", at_ns)
        await shop.corrections.apply(first, None, an_act(shop.tenant, spent))
        second = a_correction(shop.tenant, spent, nano, token, at_ns)
        applied = await shop.corrections.apply(second, expected, an_act(shop.tenant, spent))
        assert (applied.verdict, applied.charged_nano) == (verdict, comes_to)
        assert len(await shop.corrections.of(EVERY_TENANT, [spent])) == 1 + (verdict is Verdict.APPLIED)
        assert (await shop.balance()).differences == ()
        async with shop.store.operator() as conn:
            (acts,) = await (await conn.execute("select count(*) from admin_act")).fetchone()
        assert acts == 1 + (verdict is Verdict.APPLIED)

    run(scene)


def test_a_counter_that_is_too_low_stops_a_correction(run) -> None:
    async def scene(shop: Shop) -> None:
        spent = await shop.spend([claim("team=a"), claim("tenant")], 500)
        shop.tamper("update counter set charged_nano = 100 where tenant = TENANT and key = 'tenant'")
        made = a_correction(shop.tenant, spent, -200, "t-1", await arrival(shop, spent))
        applied = await shop.corrections.apply(made, None, an_act(shop.tenant, spent))
        assert applied == Applied(Verdict.SHORT, 500, ("tenant@month",))
        assert await shop.corrections.of(EVERY_TENANT, [spent]) == []

    run(scene)


def test_corrections_at_once_are_one_after_the_other(run) -> None:
    """Ten at once of the same exchange, each for a third of it: three fit."""

    async def scene(shop: Shop) -> None:
        spent = await shop.spend([claim("tenant")], 900)
        at_ns = await arrival(shop, spent)
        made = [a_correction(shop.tenant, spent, -300, f"t-{n}", at_ns) for n in range(10)]
        answers = await asyncio.gather(
            *(shop.corrections.apply(each, None, an_act(shop.tenant, spent)) for each in made)
        )
        assert sorted(answer.verdict for answer in answers) == ["applied"] * 3 + ["negative"] * 7
        assert (await shop.balance()).differences == ()

    run(scene)


def test_nobody_but_the_operator_corrects(run) -> None:
    """Corrections are final, and the roles of the data plane can make none."""

    async def scene(shop: Shop) -> None:
        spent = await shop.spend([claim("tenant")], 500)
        made = a_correction(shop.tenant, spent, -200, "t-1", await arrival(shop, spent))
        await shop.corrections.apply(made, None, an_act(shop.tenant, spent))
        change = ("update correction set nano = 1", "delete from correction", "truncate correction")
        for statement in (*change, "insert into correction select * from correction"):
            for opened in (shop.store.tenant(shop.tenant), shop.store.recording(shop.tenant), shop.store.operator()):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    async with opened as conn:
                        await conn.execute(statement)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with shop.store.tenant(shop.tenant) as conn:
                await conn.execute("select expire_corrections(now(), 10)")
        async with shop.store.operator() as conn:
            assert (await (await conn.execute("select expire_corrections(now(), 10)")).fetchone())[0] == 0
        shop.tamper("update correction set arrived_at = arrived_at - interval '3 hours' where tenant = TENANT")
        async with shop.store.operator() as conn:
            assert (await (await conn.execute("select expire_corrections(now(), 10)")).fetchone())[0] == 1

    run(scene)


async def arrival(shop: Shop, exchange_id: UUID) -> int:
    async with shop.store.operator() as conn:
        found = await (
            await conn.execute("select arrived_unix_ns from exchange where id = %s", (exchange_id,))
        ).fetchone()
    return int(found[0])
