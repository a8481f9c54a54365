"""One suite for every PauseStore: the store's own and the one in memory. Then how workers learn of pauses from the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from msgspec.structs import replace
from tests.conftest import StoreUrls

from shipworthy.adapters.store import pauses as store_pauses
from shipworthy.adapters.store.listen import listen
from shipworthy.adapters.store.pause_cache import PauseBounds, PauseCache
from shipworthy.adapters.store.pauses import CHANNEL, StorePauses
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.control.runaway import pause_act
from shipworthy.kit.builders import an_op
from shipworthy.kit.grants import a_grant
from shipworthy.kit.memory_pauses import MemoryPauses
from shipworthy.kit.memory_record import MemoryActs
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Grant, Principal
from shipworthy.model.op import SystemClock
from shipworthy.model.pause import PauseAsked, Placed
from shipworthy.model.policy import Watched
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.ports import PauseStore

ISSUER = "https://login.example"


def asked(tenant: str, principal: str = f"{ISSUER}#ada", session: str = "", by: str = "eve") -> PauseAsked:
    kind = Watched.SESSION if session else Watched.PRINCIPAL
    return PauseAsked(
        tenant=tenant, id=an_op().id, kind=kind, principal=principal, session=session, reason="why", by=by
    )


async def place(pauses: PauseStore, wanted: PauseAsked) -> Placed:
    return await pauses.pause(wanted, pause_act(an_op(), wanted, wanted.by))


async def lift(pauses: PauseStore, wanted: PauseAsked, tenant: str = "") -> bool:
    act = replace(pause_act(an_op(), wanted, "olga"), act="spend.release")
    return await pauses.release(tenant or wanted.tenant, wanted.id, "all well", act) is not None


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncGenerator[PauseStore]:
    if kind == "memory":
        yield MemoryPauses(MemoryActs(), standing_max=3)
        return
    async with Store(url) as store:
        yield StorePauses(store)


Play = Callable[[Callable[[PauseStore], Awaitable[None]]], None]


@pytest.fixture(params=["memory", "store"])
def play(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a story against one of the implementations."""
    url = request.getfixturevalue("store_urls").url if request.param == "store" else ""
    monkeypatch.setattr(store_pauses, "STANDING_MAX", 3)

    def run(story: Callable[[PauseStore], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30), opened(request.param, url) as pauses:
                await story(pauses)

        asyncio.run(bounded())

    return run


def test_a_pause_stands_until_it_is_released(play: Play, tenant_name: Callable[[str], str]) -> None:
    async def story(pauses: PauseStore) -> None:
        wanted = asked(tenant_name("stands"))
        assert await place(pauses, wanted) is Placed.PAUSED
        (found,) = await pauses.active(wanted.tenant)
        assert (found.id, found.kind, found.principal, found.session) == (wanted.id, wanted.kind, wanted.principal, "")
        assert (found.reason, found.by, found.released_at) == ("why", "eve", None)
        act = replace(pause_act(an_op(), wanted, "olga"), act="spend.release")
        ended = await pauses.release(wanted.tenant, wanted.id, "all well", act)
        assert ended is not None
        assert (ended.released_by, ended.released_because) == ("olga", "all well")
        assert ended.released_at is not None and ended.released_at >= ended.at
        assert list(await pauses.active(wanted.tenant)) == []
        assert not await lift(pauses, wanted), "once"

    play(story)


def test_the_same_is_paused_once_and_may_be_paused_again(play: Play, tenant_name: Callable[[str], str]) -> None:
    async def story(pauses: PauseStore) -> None:
        tenant = tenant_name("once")
        first = asked(tenant, session="s-1")
        assert await place(pauses, first) is Placed.PAUSED
        assert await place(pauses, asked(tenant, session="s-1")) is Placed.ALREADY
        assert await place(pauses, asked(tenant)) is Placed.PAUSED, "the principal is another thing than its session"
        assert await lift(pauses, first)
        assert await place(pauses, asked(tenant, session="s-1")) is Placed.PAUSED

    play(story)


def test_a_tenant_has_its_fill(play: Play, tenant_name: Callable[[str], str]) -> None:
    async def story(pauses: PauseStore) -> None:
        tenant = tenant_name("full")
        for number in range(3):
            assert await place(pauses, asked(tenant, session=f"s-{number}")) is Placed.PAUSED
        assert await place(pauses, asked(tenant)) is Placed.FULL
        assert await place(pauses, asked(tenant_name("other"))) is Placed.PAUSED

    play(story)


def test_a_tenant_sees_and_releases_its_own(play: Play, tenant_name: Callable[[str], str]) -> None:
    async def story(pauses: PauseStore) -> None:
        ours, theirs = asked(tenant_name("ours")), asked(tenant_name("theirs"))
        for wanted in (ours, theirs):
            assert await place(pauses, wanted) is Placed.PAUSED
        assert [pause.id for pause in await pauses.active(ours.tenant)] == [ours.id]
        assert {ours.id, theirs.id} <= {pause.id for pause in await pauses.active(EVERY_TENANT)}
        assert not await lift(pauses, theirs, ours.tenant)
        with pytest.raises(ValueError, match="never everything"):
            await pauses.active("")

    play(story)


# ------------------------------------------------------------------------------------------------ the store only


def run(url: str, story: Callable[[Store], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60), Store(url) as store:
            await story(store)

    asyncio.run(bounded())


def grant(tenant: str, subject: str = "ada", session: str = "") -> Grant:
    known = a_grant(())
    principal = Principal(tenant, subject, issuer=ISSUER)
    return replace(known, principal=principal, tenant=replace(known.tenant, name=tenant), session=session)


async def verdict(cache: PauseCache, of: Grant) -> str:
    try:
        await cache.check(an_op(), of)
    except Refusal as refused:
        return refused.code
    return ""


def test_a_pause_and_its_act_are_one_transaction(store_urls: StoreUrls, tenant_name: Callable[[str], str]) -> None:
    """No pause without its act, no act without its pause."""

    async def story(store: Store) -> None:
        pauses, wanted = StorePauses(store), asked(tenant_name("one"))
        for _ in range(2):
            await place(pauses, wanted)
            await lift(pauses, wanted)
        async with store.tenant(wanted.tenant) as conn:
            rows = await (
                await conn.execute("select act, target, facts ->> 'principal' from admin_act order by at")
            ).fetchall()
        assert [row[0] for row in rows] == ["spend.pause", "spend.release"]
        assert {row[1:] for row in rows} == {(str(wanted.id), wanted.principal)}

    with pytest.raises(psycopg.errors.UniqueViolation):  # the id of a pause that was released is never used again
        run(store_urls.url, story)


def test_the_application_sees_no_pause_of_another_tenant(
    store_urls: StoreUrls, tenant_name: Callable[[str], str]
) -> None:
    """Who is paused is told to every worker; why is the tenant's own."""

    async def story(store: Store) -> None:
        wanted = asked(tenant_name("hidden"))
        await place(StorePauses(store), wanted)
        async with store.connection(StoreRole.APP) as conn:
            assert await (await conn.execute("select id from pause")).fetchall() == []
        async with store.tenant(tenant_name("other")) as conn:
            assert await (await conn.execute("select id from pause")).fetchall() == []
        for forbidden in ("update pause set reason = 'x'", "delete from pause", "select * from spend_slot"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with store.tenant(wanted.tenant) as conn:
                    await conn.execute(forbidden)

    run(store_urls.url, story)


@pytest.mark.parametrize("listening", [True, False])
def test_a_pause_holds_and_ends_on_every_worker_within_a_second(
    store_urls: StoreUrls, tenant_name: Callable[[str], str], listening: bool
) -> None:
    """With the LISTEN connection and with it cut: two workers refuse in time, serve in time, and serve the neighbours."""

    async def until_all_say(caches: list[PauseCache], of: Grant, code: str) -> float:
        began = time.monotonic()
        while [await verdict(cache, of) for cache in caches] != [code] * len(caches):
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def story(store: Store) -> None:
        pauses, tenant = StorePauses(store), tenant_name("second")
        caches = [PauseCache(pauses, SystemClock(), lambda _: None) for _ in range(2)]
        tasks = [asyncio.create_task(cache.watch()) for cache in caches]
        if listening:
            tasks += [asyncio.create_task(listen(store, CHANNEL, cache.wake, lambda _: None)) for cache in caches]
        await until_all_say(caches, grant(tenant), "")
        await asyncio.sleep(0.3)
        for wanted in (asked(tenant, session="s-1"), asked(tenant)):
            of = grant(tenant, session=wanted.session)
            await place(pauses, wanted)
            assert await until_all_say(caches, of, "reserve.paused") < (0.2 if listening else 1.0)
            neighbours = [grant(tenant, "bob", wanted.session), grant(tenant_name("other"), session=wanted.session)]
            neighbours += [grant(tenant, session="s-2")] if wanted.session else []
            assert [await verdict(cache, of) for cache in caches for of in neighbours] == [""] * 2 * len(neighbours)
            await lift(pauses, wanted)
            assert await until_all_say(caches, of, "") < (0.2 if listening else 1.0)
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)

    run(store_urls.url, story)


def test_it_fails_closed_when_the_store_is_gone(store_urls: StoreUrls, tenant_name: Callable[[str], str]) -> None:
    async def story(store: Store) -> None:
        tenant = tenant_name("closed")
        cache = PauseCache(StorePauses(store), SystemClock(), lambda _: None, PauseBounds(outage_ms=1_500))
        assert await verdict(cache, grant(tenant)) == ""
        await store.close()
        assert await verdict(cache, grant(tenant)) == ""
        await asyncio.sleep(1.6)
        assert await verdict(cache, grant(tenant)) == "reserve.store_unavailable"

    run(store_urls.url, story)
