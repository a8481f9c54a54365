"""Who is paused is refused from memory within a second whatever happens to notifications; past that it fails closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from shipworthy.adapters.store import pause_cache
from shipworthy.adapters.store.pause_cache import PauseBounds, PauseCache
from shipworthy.adapters.store.pauses import Changed, Standing
from shipworthy.http.errors import headers_of, status_of
from shipworthy.kit.builders import an_op
from shipworthy.kit.clock import HandClock
from shipworthy.kit.grants import a_grant
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Grant, Principal
from shipworthy.model.observation import Observation, StoreDegraded

ISSUER = "https://login.example"
AT = datetime(2026, 11, 21, 21, 42, tzinfo=UTC)


class Source:
    """The store's table of pauses, which can be cut off."""

    def __init__(self) -> None:
        self.standing: list[Standing] = []
        self.at = 1
        self.cut = False
        self.asked = 0
        self.slow_s = 0.0

    async def changed(self, known: int) -> Changed:
        self.asked += 1
        answer = Changed(self.at, None if known == self.at else list(self.standing))
        await asyncio.sleep(self.slow_s)
        if self.cut:
            raise StoreUnavailable("cut")
        return answer

    def stand(self, *standing: Standing) -> None:
        self.standing = list(standing)
        self.at += 1


class Stage:
    def __init__(self, **bounds: int) -> None:
        self.source, self.clock = Source(), HandClock()
        self.seen: list[Observation] = []
        self.cache = PauseCache(self.source, self.clock, self.seen.append, PauseBounds(**bounds))

    async def check(self, *, tenant: str = "acme", session: str = "", principal: Principal | None = None) -> str:
        try:
            await self.cache.check(an_op(self.seen), grant(tenant, session, principal))
        except Refusal as refused:
            return refused.code
        return ""


def grant(tenant: str, session: str, principal: Principal | None = None) -> Grant:
    known = a_grant(())
    principal = principal or Principal(tenant, "ada", issuer=ISSUER)
    return replace(known, principal=principal, tenant=replace(known.tenant, name=tenant), session=session)


def a_pause(session: str = "", principal: str = f"{ISSUER}#ada", tenant: str = "acme") -> Standing:
    return Standing(tenant, principal, session, AT, watched=True)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def test_a_pause_hits_what_it_names_and_nothing_else() -> None:
    key = Principal("acme", "service:nightly", kind="service", key_id="abc")

    async def story() -> None:
        stage = Stage()
        stage.source.stand(a_pause("s-1"), a_pause(principal="key:abc"))
        assert await stage.check(session="s-1") == "reserve.paused"
        assert [await stage.check(session=each) for each in ("", "s-2")] == ["", ""]
        assert await stage.check(session="s-1", tenant="other") == ""
        assert await stage.check(session="s-1", principal=Principal("acme", "bob", issuer=ISSUER)) == ""
        assert await stage.check(session="s-1", principal=Principal("acme", "ada", issuer="https://other")) == ""
        assert await stage.check(session="any", principal=key) == "reserve.paused"
        assert await stage.check(principal=replace(key, subject="ada", issuer=ISSUER, actor="service:nightly")) == ""

    run(story)


def test_it_asks_once_and_answers_from_memory() -> None:
    async def story() -> None:
        stage = Stage()
        stage.source.slow_s = 0.01
        assert set(await asyncio.gather(*(stage.check() for _ in range(50)))) == {""}
        assert stage.source.asked == 1
        stage.clock.pass_s(0.9)
        assert await stage.check() == ""
        assert stage.source.asked == 1

    run(story)


def test_it_fails_closed_past_the_bound_and_opens_again() -> None:
    async def story() -> None:
        stage = Stage()
        assert await stage.check() == ""
        stage.source.cut = True
        stage.clock.pass_s(8.0)
        assert await stage.check() == ""
        stage.clock.pass_s(0.01)
        assert await stage.check() == "reserve.store_unavailable"
        stage.source.cut = False
        stage.source.stand(a_pause())
        assert await stage.check() == "reserve.paused"

    run(story)


def test_a_store_that_hangs_is_waited_for_a_bounded_time() -> None:
    async def story() -> None:
        stage = Stage(look_ms=50)
        stage.source.slow_s = 30
        assert await stage.check() == "reserve.store_unavailable"

    run(story)


def test_the_watch_learns_of_a_pause_and_says_an_outage_once() -> None:
    async def story() -> None:
        stage = Stage(poll_ms=5)
        await stage.check()
        watching = asyncio.create_task(stage.cache.watch())
        stage.source.stand(a_pause())
        while await stage.check() != "reserve.paused":
            await asyncio.sleep(0.001)
        stage.source.cut = True
        await asyncio.sleep(0.05)
        stage.source.cut = False
        stage.source.stand()
        while await stage.check():
            await asyncio.sleep(0.001)
        assert [type(said) for said in stage.seen] == [StoreDegraded]
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(story)


def test_a_wake_asks_at_once_even_during_a_look() -> None:
    """A change that a look under way has just missed is seen by the next one, without waiting for the poll."""

    async def story() -> None:
        stage = Stage(poll_ms=10_000)
        await stage.check()
        watching = asyncio.create_task(stage.cache.watch())
        stage.source.slow_s = 0.03
        stage.cache.wake()
        await asyncio.sleep(0.01)
        stage.source.stand(a_pause())
        stage.cache.wake()
        await asyncio.sleep(0.1)
        assert await stage.check() == "reserve.paused"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(story)


def test_while_nobody_sends_anything_it_is_asked_seldom() -> None:
    async def story() -> None:
        stage = Stage(poll_ms=1)
        await stage.check()
        stage.clock.pass_s(6)
        watching = asyncio.create_task(stage.cache.watch())
        await asyncio.sleep(0.05)
        assert stage.source.asked == 2  # by the request, and when it began to watch
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(story)


def test_a_store_that_was_restored_from_a_backup_is_believed() -> None:
    """Its number went back: another one is another one."""

    async def story() -> None:
        stage = Stage()
        stage.source.at = 9
        stage.source.stand(a_pause())
        assert await stage.check() == "reserve.paused"
        stage.source.standing, stage.source.at = [], 3
        stage.clock.pass_s(1)
        assert await stage.check() == ""

    run(story)


def test_too_many_pauses_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause_cache, "LOADED_MAX", 2)

    async def story() -> None:
        stage = Stage()
        standing: Sequence[Standing] = [a_pause(f"s-{number}") for number in range(2)]
        stage.source.stand(*standing)
        assert await stage.check(session="s-1") == "reserve.paused"
        assert isinstance(stage.seen[0], StoreDegraded)

    run(story)


@pytest.mark.parametrize(
    ("watched", "why"), [(True, "it spent far more than is normal"), (False, "an administrator paused it")]
)
def test_what_the_client_is_told(watched: bool, why: str) -> None:
    """That waiting is futile, since when, why in general, who can help; neither figures nor anybody's name."""
    refused = pause_cache.refusal(replace(a_pause("s-1"), watched=watched))
    assert status_of(refused) == 403
    assert dict(headers_of(refused)) == {"x-should-retry": "false"}
    assert refused.message.endswith(f" session is paused since 2026-11-21 21:42:00+00:00: {why}.")
    assert "shipworthy cost release" in refused.hint
    assert "ada" not in refused.message + refused.hint
