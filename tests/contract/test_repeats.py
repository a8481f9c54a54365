"""One suite for every Repeats: a key begins once, answers its repeats, and is free again when its time is over."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.repeats import RepeatBounds, StoreRepeats
from shipworthy.kit.memory_keys import MemoryRepeats
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.op import Op, SystemClock
from shipworthy.ports import Repeats, Stored

SECRET = b"s" * 32
BODY = hashlib.sha256(b"{}").digest()
OTHER = hashlib.sha256(b"[]").digest()
KEPT_S, IN_FLIGHT_S, BYTES_MAX = 1.0, 0.6, 1_000

Story = Callable[[Repeats, str], Awaitable[None]]


def op() -> Op:
    return Op.for_request(SystemClock(), lambda _: None)


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncGenerator[Repeats]:
    if kind == "memory":
        yield MemoryRepeats(kept_s=KEPT_S, in_flight_s=IN_FLIGHT_S, body_bytes_max=BYTES_MAX)
        return
    async with Store(url) as store:
        bounds = RepeatBounds(kept_s=KEPT_S, in_flight_s=IN_FLIGHT_S, body_bytes_max=BYTES_MAX)
        yield StoreRepeats(store, SECRET, bounds)


@pytest.fixture(params=["memory", "store"])
def play(request: pytest.FixtureRequest, tenant_name: Callable[[str], str]) -> Callable[[Story], None]:
    url = request.getfixturevalue("store_urls").url if request.param == "store" else ""

    def run(story: Story) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30), opened(request.param, url) as repeats:
                await story(repeats, tenant_name("repeats"))

        asyncio.run(bounded())

    return run


def test_the_first_begins_and_its_answer_serves_repeats(play: Callable[[Story], None]) -> None:
    async def story(repeats: Repeats, tenant: str) -> None:
        first = op()
        assert await repeats.begin(first, tenant, "alice", "k", BODY) is None
        stored = Stored(first.id, 200, "application/json", b'{"a": "\xc3\xa4"}')
        await repeats.finish(first, tenant, "alice", "k", stored)
        assert await repeats.begin(op(), tenant, "alice", "k", BODY) == stored
        assert await repeats.begin(op(), tenant, "alice", "k", BODY) == stored

    play(story)


def test_another_body_is_refused_in_flight_and_after(play: Callable[[Story], None]) -> None:
    async def story(repeats: Repeats, tenant: str) -> None:
        first = op()
        await repeats.begin(first, tenant, "alice", "k", BODY)
        with pytest.raises(Refusal, match="other_body"):
            await repeats.begin(op(), tenant, "alice", "k", OTHER)
        await repeats.finish(first, tenant, "alice", "k", Stored(first.id, 200, "application/json", b"{}"))
        with pytest.raises(Refusal, match="other_body"):
            await repeats.begin(op(), tenant, "alice", "k", OTHER)

    play(story)


def test_in_flight_is_refused_until_its_worker_counts_as_dead(play: Callable[[Story], None]) -> None:
    async def story(repeats: Repeats, tenant: str) -> None:
        await repeats.begin(op(), tenant, "alice", "k", BODY)
        with pytest.raises(Refusal, match="in_flight"):
            await repeats.begin(op(), tenant, "alice", "k", BODY)
        await asyncio.sleep(IN_FLIGHT_S + 0.1)
        assert await repeats.begin(op(), tenant, "alice", "k", OTHER) is None

    play(story)


def test_a_worker_that_was_taken_for_dead_changes_nothing(play: Callable[[Story], None]) -> None:
    async def story(repeats: Repeats, tenant: str) -> None:
        slow, second = op(), op()
        await repeats.begin(slow, tenant, "alice", "k", BODY)
        await asyncio.sleep(IN_FLIGHT_S + 0.1)
        await repeats.begin(second, tenant, "alice", "k", BODY)
        await repeats.finish(slow, tenant, "alice", "k", Stored(slow.id, 200, "application/json", b"slow"))
        await repeats.finish(slow, tenant, "alice", "k", None)
        with pytest.raises(Refusal, match="in_flight"):
            await repeats.begin(op(), tenant, "alice", "k", BODY)
        await repeats.finish(second, tenant, "alice", "k", Stored(second.id, 200, "application/json", b"second"))
        found = await repeats.begin(op(), tenant, "alice", "k", BODY)
        assert found is not None and found.body == b"second"

    play(story)


def test_forgetting_and_answers_too_large_let_a_repeat_run_afresh(play: Callable[[Story], None]) -> None:
    async def story(repeats: Repeats, tenant: str) -> None:
        for stored_of in (lambda _: None, lambda o: Stored(o.id, 200, "application/json", b"x" * (BYTES_MAX + 1))):
            first = op()
            assert await repeats.begin(first, tenant, "alice", "k", BODY) is None
            await repeats.finish(first, tenant, "alice", "k", stored_of(first))
        assert await repeats.begin(op(), tenant, "alice", "k", OTHER) is None

    play(story)


def test_an_answer_is_kept_for_its_time_only(play: Callable[[Story], None]) -> None:
    async def story(repeats: Repeats, tenant: str) -> None:
        first = op()
        await repeats.begin(first, tenant, "alice", "k", BODY)
        await repeats.finish(first, tenant, "alice", "k", Stored(first.id, 200, "application/json", b"{}"))
        await asyncio.sleep(KEPT_S + 0.1)
        assert await repeats.begin(op(), tenant, "alice", "k", OTHER) is None

    play(story)


def test_tenants_and_scopes_are_strangers(play: Callable[[Story], None]) -> None:
    """Isolation: the same key of another principal, route or tenant is another key."""

    async def story(repeats: Repeats, tenant: str) -> None:
        for at, scope, key in ((tenant, "alice", "k"), (tenant, "bob", "k"), (f"{tenant}-2", "alice", "k")):
            assert await repeats.begin(op(), at, scope, key, BODY) is None
        assert await repeats.begin(op(), tenant, "alicek", "", BODY) is None
        assert await repeats.begin(op(), tenant, "alic", "ek", BODY) is None

    play(story)


def test_of_many_that_begin_at_once_one_is_first(play: Callable[[Story], None]) -> None:
    async def story(repeats: Repeats, tenant: str) -> None:
        async def begin() -> str:
            mine = op()
            mine.deadline_ns = mine.clock.monotonic_ns() + 30 * 10**9  # in flight for longer than a busy machine takes
            try:
                await repeats.begin(mine, tenant, "alice", "k", BODY)
            except Refusal as refused:
                return refused.code
            return "first"

        ended = await asyncio.gather(*(begin() for _ in range(20)))
        assert sorted(set(ended)) == ["first", "idempotency.in_flight"]
        assert ended.count("first") == 1

    play(story)


# ------------------------------------------------------------------------------------------------ the store only


def test_nothing_is_kept_in_the_clear_and_a_changed_answer_is_not_served(
    store_urls: object, tenant_name: Callable[[str], str]
) -> None:
    async def story() -> None:
        tenant = tenant_name("sealed")
        async with asyncio.timeout(30), Store(store_urls.url) as store:
            repeats, first = StoreRepeats(store, SECRET), op()
            await repeats.begin(first, tenant, "canary-scope", "canary-key", BODY)
            kept = Stored(first.id, 200, "application/json", b"canary-answer")
            await repeats.finish(first, tenant, "canary-scope", "canary-key", kept)
            async with store.tenant(tenant) as conn:
                rows = await (await conn.execute("select * from repeat")).fetchall()
                assert len(rows) == 1
                assert "canary" not in repr(rows)
                assert BODY not in rows[0]
            async with store.tenant(tenant) as conn:
                flipped = "set_byte(ciphertext, 0, get_byte(ciphertext, 0) # 1)"
                await conn.execute(f"update repeat set ciphertext = {flipped}")
            with pytest.raises(StoreUnavailable, match="not what was sealed"):
                await repeats.begin(op(), tenant, "canary-scope", "canary-key", BODY)

    asyncio.run(story())


def test_what_is_over_is_swept_and_no_more(store_urls: object, tenant_name: Callable[[str], str]) -> None:
    async def story() -> None:
        tenant = tenant_name("swept")
        async with asyncio.timeout(30), Store(store_urls.url) as store:
            brief = StoreRepeats(store, SECRET, RepeatBounds(in_flight_s=0.05))
            for number in range(5):
                await brief.begin(op(), tenant, "alice", f"k{number}", BODY)
            lasting = StoreRepeats(store, SECRET)
            await lasting.begin(op(), tenant, "alice", "lasting", BODY)
            await asyncio.sleep(0.1)
            assert await lasting.sweep(tenant) == 5
            assert await lasting.sweep(tenant) == 0
            with pytest.raises(Refusal, match="in_flight"):
                await lasting.begin(op(), tenant, "alice", "lasting", BODY)

    asyncio.run(story())
