"""One suite for every KeyStore: the store's own and the one in memory. Then what only the store promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from msgspec.structs import replace

from shipworthy.adapters.store.acts import StoreActs
from shipworthy.adapters.store.key_cache import KeyCache
from shipworthy.adapters.store.keys import CHANNEL, StoreKeys
from shipworthy.adapters.store.listen import listen
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.kit.memory_keys import MemoryKeys
from shipworthy.kit.memory_record import MemoryActs
from shipworthy.model import service_key
from shipworthy.model.errors import Refusal
from shipworthy.model.op import Kind, Op, SystemClock, uuid7
from shipworthy.ports import AdminAct, KeyStore, ServiceKey

PEPPER = b"p" * 32
CREATED = datetime(2026, 11, 21, 12, tzinfo=UTC)


def key_of(tenant: str, secret: service_key.SecretKey | None = None, **changes: object) -> ServiceKey:
    secret = secret or service_key.mint()
    key = ServiceKey(
        id=secret.id,
        tenant=tenant,
        name="backend",
        role="backend",
        use_cases=("support", "faq"),
        created_at=CREATED,
        expires_at=CREATED + timedelta(days=90),
        revoked_at=None,
        created_by="test",
        secret_hmac=secret.proof(PEPPER),
    )
    return replace(key, **changes)


def act_of(act: str, key: ServiceKey) -> AdminAct:
    now_ns = time.time_ns()
    return AdminAct(
        id=uuid7(now_ns), at_unix_ns=now_ns, actor="test", act=act, tenant=key.tenant, target=key.id, facts={"a": "b"}
    )


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncGenerator[KeyStore]:
    if kind == "memory":
        yield MemoryKeys(MemoryActs())
        return
    async with Store(url) as store:
        yield StoreKeys(store)


@pytest.fixture(params=["memory", "store"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[KeyStore], Awaitable[None]]], None]:
    """Runs a story against one of the implementations."""
    url = request.getfixturevalue("store_urls").url if request.param == "store" else ""

    def run(story: Callable[[KeyStore], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30), opened(request.param, url) as keys:
                await story(keys)

        asyncio.run(bounded())

    return run


Play = Callable[[Callable[[KeyStore], Awaitable[None]]], None]


def test_a_key_is_found_as_it_was_made(play: Play, tenant_name: Callable[[str], str]) -> None:
    async def story(keys: KeyStore) -> None:
        key = key_of(tenant_name("found"))
        await keys.create(key, act_of("key.create", key))
        assert await keys.find(key.id) == key
        assert await keys.find(service_key.mint().id) is None

    play(story)


def test_keys_are_listed_for_their_tenant_only(play: Play, tenant_name: Callable[[str], str]) -> None:
    async def story(keys: KeyStore) -> None:
        ours, theirs = tenant_name("ours"), tenant_name("theirs")
        made = [key_of(ours), key_of(ours, expires_at=None), key_of(theirs)]
        for key in made:
            await keys.create(key, act_of("key.create", key))
        assert {key.id for key in await keys.list(ours)} == {made[0].id, made[1].id}
        assert list(await keys.list(tenant_name("nobody"))) == []

    play(story)


def test_a_key_is_revoked_once_and_only_by_its_tenant(play: Play, tenant_name: Callable[[str], str]) -> None:
    async def story(keys: KeyStore) -> None:
        key = key_of(tenant_name("revoke"))
        await keys.create(key, act_of("key.create", key))
        assert not await keys.revoke(tenant_name("other"), key.id, act_of("key.revoke", key))
        act = act_of("key.revoke", key)
        assert await keys.revoke(key.tenant, key.id, act)
        found = await keys.find(key.id)
        assert found is not None and found.revoked_at is not None
        assert abs(found.revoked_at.timestamp() - act.at_unix_ns / 1e9) < 0.001
        assert not await keys.revoke(key.tenant, key.id, act_of("key.revoke", key))

    play(story)


# ------------------------------------------------------------------------------------------------ the store only


def run(url: str, story: Callable[[Store], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30), Store(url) as store:
            await story(store)

    asyncio.run(bounded())


def test_a_key_and_its_act_are_one_transaction(store_urls: object, tenant_name: Callable[[str], str]) -> None:
    """No key without its act, no act without its key."""

    async def story(store: Store) -> None:
        keys, key = StoreKeys(store), key_of(tenant_name("one"))
        made = act_of("key.create", key)
        await keys.create(key, made)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await keys.create(key, act_of("key.create", key))
        await keys.revoke(key.tenant, key.id, act_of("key.revoke", key))
        await keys.revoke(key.tenant, key.id, act_of("key.revoke", key))
        async with store.tenant(key.tenant) as conn:
            rows = await (await conn.execute("select act, facts, at_unix_ns from admin_act order by at")).fetchall()
        assert [row[0] for row in rows] == ["key.create", "key.revoke"]
        assert rows[0][1:] == ({"a": "b"}, made.at_unix_ns)

    run(store_urls.url, story)


def test_the_application_sees_no_key_whose_id_it_does_not_name(
    store_urls: object, tenant_name: Callable[[str], str]
) -> None:
    async def story(store: Store) -> None:
        keys, key = StoreKeys(store), key_of(tenant_name("hidden"))
        await keys.create(key, act_of("key.create", key))
        async with store.connection(StoreRole.APP) as conn:
            assert await (await conn.execute("select id from service_key")).fetchall() == []
        assert await keys.find(key.id) == key
        async with store.connection(StoreRole.APP) as conn:  # naming it is over with the statement
            assert await (await conn.execute("select id from service_key")).fetchall() == []
        for forbidden in ("update service_key set role = 'admin'", "delete from service_key"):
            async with store.tenant(key.tenant) as conn:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await conn.execute(forbidden)

    run(store_urls.url, story)


async def verdict(cache: KeyCache, text: str) -> str:
    try:
        return (await cache.verify(Op(Kind.REQUEST, SystemClock(), lambda _: None), text)).subject
    except Refusal as refused:
        return refused.code


@pytest.mark.parametrize("listening", [True, False])
def test_a_revocation_holds_on_every_worker_within_a_second(
    store_urls: object, tenant_name: Callable[[str], str], listening: bool
) -> None:
    """With the LISTEN connection and with it cut: two workers stop accepting the key in time."""

    async def story(store: Store) -> None:
        secret = service_key.mint()
        key = key_of(tenant_name("second"), secret, expires_at=None)
        keys = StoreKeys(store)
        await keys.create(key, act_of("key.create", key))
        caches = [KeyCache(keys, PEPPER, SystemClock(), lambda _: None) for _ in range(2)]
        tasks = [asyncio.create_task(cache.watch()) for cache in caches]
        if listening:
            tasks += [asyncio.create_task(listen(store, CHANNEL, c.wake, lambda _: None)) for c in caches]
        for _ in range(8):  # in use: the number is polled
            assert [await verdict(cache, secret.reveal()) for cache in caches] == ["service:backend"] * 2
            await asyncio.sleep(0.1)
        await StoreKeys(store).revoke(key.tenant, key.id, act_of("key.revoke", key))
        revoked = time.monotonic()
        until = {0: 0.0, 1: 0.0}
        while len(until) and time.monotonic() - revoked < 5:
            for number in list(until):
                if await verdict(caches[number], secret.reveal()) == "identify.key_revoked":
                    took = time.monotonic() - revoked
                    assert took < 1.0
                    assert not listening or took < 0.25  # sooner than the next poll can be late
                    del until[number]
            await asyncio.sleep(0.005)
        assert until == {}
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)

    run(store_urls.url, story)


def test_it_fails_closed_when_the_store_is_gone(store_urls: object, tenant_name: Callable[[str], str]) -> None:
    async def story(store: Store) -> None:
        secret = service_key.mint()
        key = key_of(tenant_name("closed"), secret, expires_at=None)
        keys = StoreKeys(store)
        await keys.create(key, act_of("key.create", key))
        cache = KeyCache(keys, PEPPER, SystemClock(), lambda _: None)
        assert await verdict(cache, secret.reveal()) == "service:backend"
        await store.close()
        assert await verdict(cache, secret.reveal()) == "service:backend"
        await asyncio.sleep(0.95)
        assert await verdict(cache, secret.reveal()) == "identify.keys_unavailable"

    run(store_urls.url, story)


def test_acts_on_the_whole_deployment_are_the_operators(store_urls: object, tenant_name: Callable[[str], str]) -> None:
    async def story(store: Store) -> None:
        acts, key = StoreActs(store), key_of(tenant_name("acts"))
        await acts.act(replace(act_of("manifest.reload", key), tenant="", target="all"))
        await acts.act(act_of("body.read", key))
        async with store.tenant(key.tenant) as conn:
            rows = await (await conn.execute("select act from admin_act")).fetchall()
            assert [row[0] for row in rows] == ["body.read"]
        async with store.operator() as conn:
            rows = await (await conn.execute("select 1 from admin_act where target = 'all'")).fetchall()
            assert len(rows) >= 1

    run(store_urls.url, story)
