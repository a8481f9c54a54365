"""A revoked key is refused within a second whatever happens to notifications; past that the cache fails closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from shipworthy.adapters.store.key_cache import KeyBounds, KeyCache
from shipworthy.adapters.store.keys import Looked
from shipworthy.model import service_key
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.observation import Observation, StoreDegraded
from shipworthy.model.op import Kind, Op, SystemClock
from shipworthy.ports import ServiceKey

PEPPER = b"p" * 32
MS = 1_000_000


class StandingClock:
    def __init__(self) -> None:
        self.now_ns = 1_795_000_000 * 10**9

    def unix_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns


class Source:
    """The store's table of keys, which can be cut off."""

    def __init__(self) -> None:
        self.keys: dict[str, ServiceKey] = {}
        self.at = 1
        self.cut = False
        self.looks = 0
        self.polls = 0
        self.during_look: Callable[[], None] = lambda: None
        self.slow_s = 0.0

    async def look(self, key_id: str) -> Looked:
        self.looks += 1
        if self.cut:
            raise StoreUnavailable("cut")
        looked = Looked(self.at, self.keys.get(key_id))
        self.during_look()
        await asyncio.sleep(self.slow_s)
        return looked

    async def version(self) -> int:
        self.polls += 1
        if self.cut:
            raise StoreUnavailable("cut")
        return self.at

    def put(self, key: ServiceKey) -> None:
        self.keys[key.id] = key
        self.at += 1

    def revoke(self, key_id: str) -> None:
        self.put(replace(self.keys[key_id], revoked_at=datetime(2026, 11, 21, tzinfo=UTC)))


class Stage:
    def __init__(self, **bounds: int) -> None:
        self.source, self.clock = Source(), StandingClock()
        self.seen: list[Observation] = []
        self.cache = KeyCache(self.source, PEPPER, self.clock, self.seen.append, KeyBounds(**bounds))
        self.secret = service_key.mint()
        self.source.put(key_of(self.secret))

    async def verify(self, text: str = "") -> str:
        """The subject, or the code of the refusal."""
        try:
            op = Op(Kind.REQUEST, self.clock, self.seen.append)
            return (await self.cache.verify(op, text or self.secret.reveal())).subject
        except Refusal as refused:
            return refused.code

    def later(self, ms: int) -> None:
        self.clock.now_ns += ms * MS


def key_of(secret: service_key.SecretKey, **changes: object) -> ServiceKey:
    return replace(
        ServiceKey(
            id=secret.id,
            tenant="northwind",
            name="backend",
            role="backend",
            use_cases=("*",),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            expires_at=None,
            revoked_at=None,
            created_by="test",
            secret_hmac=secret.proof(PEPPER),
        ),
        **changes,
    )


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def test_a_key_proves_its_tenant_role_and_use_cases() -> None:
    async def story() -> None:
        stage = Stage()
        stage.source.put(key_of(stage.secret, use_cases=("support",)))
        op = Op(Kind.REQUEST, stage.clock, stage.seen.append)
        principal = await stage.cache.verify(op, stage.secret.reveal())
        assert (principal.tenant, principal.key_role, principal.key_use_cases) == ("northwind", "backend", ("support",))
        assert (principal.kind, principal.subject, principal.key_id) == ("service", "service:backend", stage.secret.id)

    run(story)


def test_what_is_known_costs_no_lookup_while_the_number_is_confirmed() -> None:
    async def story() -> None:
        stage = Stage()
        assert await stage.verify() == "service:backend"
        stage.later(899)
        assert await stage.verify() == "service:backend"
        assert stage.source.looks == 1

    run(story)


def test_a_revocation_is_seen_at_the_next_poll() -> None:
    async def story() -> None:
        stage = Stage()
        assert await stage.verify() == "service:backend"
        stage.source.revoke(stage.secret.id)
        stage.cache._confirm(await stage.source.version(), stage.clock.monotonic_ns())
        assert await stage.verify() == "identify.key_revoked"

    run(story)


def test_knowledge_older_than_its_bound_is_never_used() -> None:
    """With every notification and every poll lost, a revocation still holds after 900 ms."""

    async def story() -> None:
        stage = Stage()
        assert await stage.verify() == "service:backend"
        stage.source.revoke(stage.secret.id)
        stage.later(901)
        assert await stage.verify() == "identify.key_revoked"

    run(story)


def test_it_fails_closed_when_the_store_is_away_too_long() -> None:
    async def story() -> None:
        stage = Stage()
        assert await stage.verify() == "service:backend"
        stage.source.cut = True
        stage.later(500)
        assert await stage.verify() == "service:backend"
        stage.later(401)
        assert await stage.verify() == "identify.keys_unavailable"
        stage.source.cut = False
        assert await stage.verify() == "service:backend"

    run(story)


def test_a_revocation_during_a_lookup_is_not_lost() -> None:
    """The entry that was read before the change is older than the number, so that nothing stale stays."""

    async def story() -> None:
        stage = Stage()
        stage.source.during_look = lambda: stage.source.revoke(stage.secret.id) if stage.source.looks == 1 else None
        assert await stage.verify() == "service:backend"  # it was, when the look-up began
        stage.cache._confirm(await stage.source.version(), stage.clock.monotonic_ns())
        assert await stage.verify() == "identify.key_revoked"

    run(story)


def test_a_store_that_went_back_to_a_backup_is_believed() -> None:
    async def story() -> None:
        stage = Stage()
        stage.source.at = 90
        assert await stage.verify() == "service:backend"
        stage.source.at, stage.source.keys = 3, {}
        stage.later(250)
        stage.cache._confirm(await stage.source.version(), stage.clock.monotonic_ns())
        assert await stage.verify() == "identify.key_unknown"

    run(story)


def test_wrong_secrets_typos_and_unknown_ids_are_refused() -> None:
    async def story() -> None:
        stage = Stage()
        forged = service_key.SecretKey(stage.secret.id, service_key.mint().secret)
        assert await stage.verify(forged.reveal()) == "identify.key_unknown"
        assert await stage.verify(service_key.mint().reveal()) == "identify.key_unknown"
        looks = stage.source.looks
        assert await stage.verify(stage.secret.reveal()[:-1] + "-") == "identify.malformed"
        assert stage.source.looks == looks

    run(story)


def test_a_revoked_key_tells_so_only_to_whoever_holds_it() -> None:
    async def story() -> None:
        stage = Stage()
        stage.source.revoke(stage.secret.id)
        forged = service_key.SecretKey(stage.secret.id, service_key.mint().secret)
        assert await stage.verify(forged.reveal()) == "identify.key_unknown"
        assert await stage.verify() == "identify.key_revoked"

    run(story)


def test_expiry_is_looked_at_on_every_request() -> None:
    async def story() -> None:
        stage = Stage()
        expires_at = datetime.fromtimestamp(stage.clock.now_ns / 1e9 + 0.4, tz=UTC)
        stage.source.put(key_of(stage.secret, expires_at=expires_at))
        assert await stage.verify() == "service:backend"
        stage.later(400)
        assert await stage.verify() == "identify.expired"

    run(story)


def test_guesses_push_no_real_key_out_and_stay_bounded() -> None:
    async def story() -> None:
        stage = Stage(unknown_max=3, known_max=3)
        assert await stage.verify() == "service:backend"
        for _ in range(10):
            assert await stage.verify(service_key.mint().reveal()) == "identify.key_unknown"
        looks = stage.source.looks
        assert await stage.verify() == "service:backend"
        assert stage.source.looks == looks
        assert len(stage.cache._unknown) == 3

    run(story)


def test_a_new_key_is_known_though_its_id_was_asked_for_before() -> None:
    async def story() -> None:
        stage = Stage()
        late = service_key.mint()
        assert await stage.verify(late.reveal()) == "identify.key_unknown"
        stage.source.put(key_of(late, name="late"))
        stage.cache._confirm(await stage.source.version(), stage.clock.monotonic_ns())
        assert await stage.verify(late.reveal()) == "service:late"

    run(story)


def test_many_requests_of_one_key_share_a_lookup_and_one_that_leaves_ends_it_for_nobody() -> None:
    async def story() -> None:
        stage = Stage()
        stage.source.slow_s = 0.05
        first = asyncio.create_task(stage.verify())
        others = [asyncio.create_task(stage.verify()) for _ in range(50)]
        await asyncio.sleep(0.01)
        first.cancel()
        assert set(await asyncio.gather(*others)) == {"service:backend"}
        assert stage.source.looks == 1
        with pytest.raises(asyncio.CancelledError):
            await first

    run(story)


def test_a_flood_of_unknown_ids_is_refused_beyond_its_bound_while_known_keys_pass() -> None:
    async def story() -> None:
        stage = Stage(waiting_max=8)
        assert await stage.verify() == "service:backend"
        stage.source.slow_s = 0.05
        codes = await asyncio.gather(*(stage.verify(service_key.mint().reveal()) for _ in range(40)), stage.verify())
        assert codes.count("identify.key_unknown") == 8
        assert codes.count("identify.keys_unavailable") == 32
        assert codes[-1] == "service:backend"

    run(story)


def test_a_store_that_hangs_is_given_up_in_time() -> None:
    async def story() -> None:
        stage = Stage(look_ms=30)
        stage.source.slow_s = 5
        assert await stage.verify() == "identify.keys_unavailable"

    run(story)


def test_the_watch_polls_only_while_keys_are_used_and_tells_an_outage_once() -> None:
    async def story() -> None:
        stage = Stage(poll_ms=5)
        watch = asyncio.create_task(stage.cache.watch())
        await asyncio.sleep(0.05)
        assert stage.source.polls == 0
        await stage.verify()
        await asyncio.sleep(0.05)
        assert stage.source.polls > 2
        stage.source.cut = True
        await asyncio.sleep(0.05)
        assert [type(seen) for seen in stage.seen] == [StoreDegraded]
        stage.later(6_000)
        await asyncio.sleep(0.02)
        polls = stage.source.polls
        await asyncio.sleep(0.05)
        assert stage.source.polls == polls
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch

    run(story)


def test_the_bounds_keep_the_promise_of_one_second() -> None:
    bounds = KeyBounds()
    assert bounds.poll_ms <= 500
    assert bounds.poll_ms + bounds.look_ms <= bounds.stale_ms < 1_000
    assert SystemClock().monotonic_ns() > 0
