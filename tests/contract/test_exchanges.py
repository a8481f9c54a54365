"""One suite for every reader of the record: pages, filters, isolation, bodies, and sums that equal the rows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import pytest
from msgspec.structs import asdict, replace

from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.exchanges import StoreExchanges
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.memory_record import MemoryExchanges
from shipworthy.kit.rows import ARRIVED_UNIX_NS, refused, row, spent
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Bodies, Outcome, Row
from shipworthy.model.money import Basis, ChargeLine, Component
from shipworthy.model.op import uuid7
from shipworthy.model.reading import EVERY_TENANT, By, CostAsked, CostLine, Place, Wanted
from shipworthy.ports import Entry, Exchanges

KEYRING = Keyring((Kek("k-test", b"k" * 32),), b"p" * 32)
HOUR = 3_600 * 10**9
Put = Callable[..., None]
Story = Callable[[Exchanges, Put], Awaitable[None]]


@pytest.fixture(params=["memory", "store"])
def play(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    url = request.getfixturevalue("store_urls").url if request.param == "store" else ""

    async def in_memory(story: Story) -> None:
        exchanges = MemoryExchanges()

        def put(row: Row, bodies: Bodies | None = None) -> None:
            exchanges.rows.append(row)
            if bodies is not None:
                exchanges.said[row.id] = bodies

        await story(exchanges, put)

    async def in_store(story: Story) -> None:
        async with Store(url) as store:
            vault = Vault(KEYRING)
            writer = BatchWriter(store.conninfo(StoreRole.RECORDER), vault)
            try:
                await story(StoreExchanges(store, vault), lambda row, bodies=None: _written(writer, row, bodies))
            finally:
                writer.disconnect()

    def run(story: Story) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await (in_store if url else in_memory)(story)

        asyncio.run(bounded())

    return run


def _written(writer: BatchWriter, row: Row, bodies: Bodies | None) -> None:
    assert writer.write([Entry(row, bodies, None, None)]) == {row.id}


async def ids(exchanges: Exchanges, scope: str, **wanted: object) -> list[UUID]:
    """All pages, two rows each."""
    found: list[UUID] = []
    after: Place | None = None
    for _ in range(200):
        page = await exchanges.page(scope, Wanted(**wanted), after, 2)
        found += [row.id for row in page.rows]
        if page.after is None:
            return found
        after = Place.at(page.after.cursor())
    raise AssertionError("pages without an end")


def test_a_row_comes_back_as_it_was(play: Callable[[Story], None], tenant_name: Callable[[str], str]) -> None:
    async def story(exchanges: Exchanges, put: Put) -> None:
        tenant = tenant_name("back")
        for made in (row(tenant=tenant, lease_id=uuid7(ARRIVED_UNIX_NS)), refused(tenant=tenant)):
            put(made)
            assert await exchanges.get(tenant, made.id) == made
            assert await exchanges.get(EVERY_TENANT, made.id) == made
            assert await exchanges.get(tenant_name("other"), made.id) is None
        assert await exchanges.get(tenant, uuid7(ARRIVED_UNIX_NS)) is None
        assert await exchanges.get(tenant, UUID(int=(1 << 128) - 1)) is None
        assert await exchanges.get(tenant, UUID(int=0)) is None

    play(story)


def test_pages_are_newest_first_whole_and_stable(
    play: Callable[[Story], None], tenant_name: Callable[[str], str]
) -> None:
    """While newer exchanges are recorded, a reader who turns pages sees each older one once."""

    async def story(exchanges: Exchanges, put: Put) -> None:
        tenant = tenant_name("pages")
        rows = [row(tenant=tenant, arrived_unix_ns=ARRIVED_UNIX_NS + n // 3 * 1_000) for n in range(11)]
        for each in random.sample(rows, len(rows)):
            put(each)
        expected = [each.id for each in sorted(rows, key=Place.of, reverse=True)]
        assert await ids(exchanges, tenant) == expected
        first = await exchanges.page(tenant, Wanted(), None, 4)
        put(row(tenant=tenant, arrived_unix_ns=ARRIVED_UNIX_NS + HOUR))
        second = await exchanges.page(tenant, Wanted(), first.after, 100)
        assert [each.id for each in (*first.rows, *second.rows)] == expected
        assert second.after is None
        assert len((await exchanges.page(tenant, Wanted(), None, 100_000)).rows) == 12

    play(story)


def test_every_filter_filters(play: Callable[[Story], None], tenant_name: Callable[[str], str]) -> None:
    async def story(exchanges: Exchanges, put: Put) -> None:
        tenant = tenant_name("filters")
        base = row(tenant=tenant)
        other = refused(
            tenant=tenant,
            arrived_unix_ns=ARRIVED_UNIX_NS + HOUR,
            team="sales",
            use_case="quotes",
            subject="bob",
            actor="service:crm",
        )
        put(base)
        put(other)
        for field, value in (
            ("team", "sales"),
            ("use_case", "quotes"),
            ("principal", "bob"),
            ("principal", "service:crm"),
            ("outcome", "refused"),
            ("code", "reserve.budget_exhausted"),
            ("since_unix_ns", ARRIVED_UNIX_NS + HOUR),
        ):
            assert await ids(exchanges, tenant, **{field: value}) == [other.id], field
        assert await ids(exchanges, tenant, model="small") == [base.id]
        assert await ids(exchanges, tenant, until_unix_ns=ARRIVED_UNIX_NS + HOUR) == [base.id]
        assert await ids(exchanges, tenant, since_unix_ns=ARRIVED_UNIX_NS + 1, until_unix_ns=ARRIVED_UNIX_NS + 2) == []
        assert await ids(exchanges, tenant, team="sales", outcome="served") == []
        assert await ids(exchanges, tenant, use_case="' or true --") == []

    play(story)


def test_a_scope_is_never_left(play: Callable[[Story], None], tenant_name: Callable[[str], str]) -> None:
    """Isolation: no filter and no cursor shows a tenant another's rows; an empty scope is an error."""

    async def story(exchanges: Exchanges, put: Put) -> None:
        ours, theirs = tenant_name("ours"), tenant_name("theirs")
        mine, foreign = row(tenant=ours), row(tenant=theirs, arrived_unix_ns=ARRIVED_UNIX_NS - HOUR)
        put(mine)
        put(foreign, Bodies(b"secret", b"", False))
        assert await ids(exchanges, ours) == [mine.id]
        assert await ids(exchanges, ours, tenant=theirs) == []
        assert (await exchanges.page(ours, Wanted(), Place.of(mine), 10)).rows == ()
        assert await exchanges.bodies(ours, foreign.id) is None
        assert {mine.id, foreign.id} <= set(await all_of(exchanges, ours, theirs))
        everything = CostAsked(by=By.TENANT, since_unix_ns=0, until_unix_ns=0)
        assert {line.tenant for line in await exchanges.cost(ours, everything)} == {ours}
        for read in (
            exchanges.page("", Wanted(), None, 1),
            exchanges.get("", mine.id),
            exchanges.cost("", everything),
        ):
            with pytest.raises(ValueError, match="empty scope"):
                await read

    play(story)


async def all_of(exchanges: Exchanges, *tenants: str) -> list[UUID]:
    return [found for tenant in tenants for found in await ids(exchanges, EVERY_TENANT, tenant=tenant)]


def test_bodies_are_opened(play: Callable[[Story], None], tenant_name: Callable[[str], str]) -> None:
    async def story(exchanges: Exchanges, put: Put) -> None:
        tenant = tenant_name("bodies")
        kept, none = row(tenant=tenant), row(tenant=tenant)
        put(kept, Bodies(b'{"q": "\xc3\xa4"}', b"", True))
        put(none)
        assert await exchanges.bodies(tenant, kept.id) == Bodies(b'{"q": "\xc3\xa4"}', b"", True)
        assert await exchanges.bodies(EVERY_TENANT, kept.id) == Bodies(b'{"q": "\xc3\xa4"}', b"", True)
        assert await exchanges.bodies(tenant, none.id) is None

    play(story)


# ------------------------------------------------------------------------------------------------ cost


def summed(lines: Sequence[CostLine], field: str) -> int:
    return sum(asdict(line)[field] for line in lines)


def test_totals_equal_the_rows_to_the_nano_dollar_whatever_they_are_told_apart_by(
    play: Callable[[Story], None], tenant_name: Callable[[str], str]
) -> None:
    """Bill, budget and audit read the same row."""

    async def story(exchanges: Exchanges, put: Put) -> None:
        tenant = tenant_name("cost")
        rows = [spent(tenant, ARRIVED_UNIX_NS + n * HOUR, n) for n in range(30)]
        for each in rows:
            put(each)
        since, until = ARRIVED_UNIX_NS + 5 * HOUR, ARRIVED_UNIX_NS + 25 * HOUR
        meant = rows[5:25]
        mirror = MemoryExchanges(*rows)
        for by in By:
            asked = CostAsked(by=by, since_unix_ns=since, until_unix_ns=until)
            lines = await exchanges.cost(tenant, asked)
            assert summed(lines, "charged_nano") == sum(each.charged_nano for each in meant)
            assert summed(lines, "overrun_nano") == sum(each.overrun_nano for each in meant)
            assert summed(lines, "exchanges") == len(meant)
            for outcome in Outcome:
                assert summed(lines, outcome.value) == sum(each.outcome is outcome for each in meant)
            theirs = {(line.tenant, line.name): line for line in await mirror.cost(tenant, asked)}
            assert {(line.tenant, line.name): line for line in lines} == theirs
            assert await exchanges.cost(tenant, replace(asked, tenant=tenant_name("other"))) == []

    play(story)


def test_by_model_each_attempt_is_charged_to_its_own_model(
    play: Callable[[Story], None], tenant_name: Callable[[str], str]
) -> None:
    async def story(exchanges: Exchanges, put: Put) -> None:
        tenant = tenant_name("model")
        lines = (
            ChargeLine(0, "large", Component.INPUT, 10, 100, 7, Basis.CEILING),
            ChargeLine(1, "small", Component.OUTPUT, 20, 100, 5, Basis.REPORTED),
        )
        put(row(tenant=tenant, model="small", charge_lines=lines, charged_nano=12))
        asked = CostAsked(by=By.MODEL, since_unix_ns=0, until_unix_ns=0)
        found = {line.name: line for line in await exchanges.cost(tenant, asked)}
        assert (found["large"].charged_nano, found["large"].exchanges, found["large"].input_tokens) == (7, 0, 10)
        assert (found["small"].charged_nano, found["small"].exchanges, found["small"].output_tokens) == (5, 1, 20)

    play(story)


# ------------------------------------------------------------------------------------------------ the store only


def test_bodies_whose_key_is_elsewhere_are_refused_by_name(
    fresh_store: object, tenant_name: Callable[[str], str]
) -> None:
    async def story() -> None:
        tenant = tenant_name("unreadable")
        made = row(tenant=tenant)
        async with asyncio.timeout(30), Store(fresh_store.url) as store:
            writer = BatchWriter(store.conninfo(StoreRole.RECORDER), Vault(KEYRING))
            _written(writer, made, Bodies(b"{}", b"{}", False))
            writer.disconnect()
            stranger = StoreExchanges(store, Vault(Keyring((Kek("k-other", b"o" * 32),), b"p" * 32)))
            with pytest.raises(Refusal, match="unreadable"):
                await stranger.bodies(tenant, made.id)

    asyncio.run(story())
