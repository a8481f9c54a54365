"""The runaway watch over PostgreSQL: sums are exact in any order of commits, no runaway is learned, looks are bounded."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from msgspec.structs import replace
from tests.conftest import StoreUrls

from shipworthy.adapters.store.pauses import StorePauses
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.rows import COLUMNS, encode
from shipworthy.adapters.store.spend_watch import StoreSpendWatch
from shipworthy.control.runaway import Unstopped, catch_up, look
from shipworthy.kit.builders import a_row, an_op
from shipworthy.model.identity import Principal
from shipworthy.model.observation import Observation, RunawayPaused
from shipworthy.model.pause import Pause, spender
from shipworthy.model.policy import Runaway, Watched
from shipworthy.model.runaway import Normal, Spender

ISSUER = "https://login.example"
ACME = "acme"
RULE = Runaway(
    multiple=10, at_least_nano_per_min=1_000, window_minutes=1, normal_days=7,
    watch=(Watched.SESSION, Watched.PRINCIPAL),
)  # fmt: skip
RULES = {ACME: RULE}
WRITTEN = ", ".join((*COLUMNS, "arrived_at", "recorded_at"))
INSERT = f"""
insert into exchange ({WRITTEN}) select {WRITTEN} from jsonb_populate_record(null::exchange,
  %s::jsonb || jsonb_build_object('arrived_at', %s::timestamptz, 'recorded_at', %s::timestamptz))
"""


@dataclass
class Scene:
    """A store whose clock is turned by hand, and somebody who spends there."""

    superuser: psycopg.Connection
    url: str
    store: Store
    pauses: StorePauses
    watch: StoreSpendWatch
    now: datetime = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
    seen: list[Observation] = field(default_factory=list)
    unstopped: Unstopped = field(default_factory=Unstopped)

    def spend(
        self, nano: int, subject: str = "ada", session: str = "", at: datetime | None = None, **more: object
    ) -> None:
        self.spend_over(self.superuser, nano, subject, session, at, **more)

    def spend_over(
        self, conn: psycopg.Connection, nano: int, subject: str, session: str, at: datetime | None, **more: object
    ) -> None:
        row = a_row(
            an_op(),
            **{"tenant": ACME, "subject": subject, "session": session, "issuer": ISSUER} | more,
            charged_nano=nano,
        )
        at = at or self.now
        conn.execute(INSERT, (encode(row).decode(), at, at))

    async def fold(self, rules: dict[str, Runaway] = RULES) -> bool:
        return await catch_up(an_op(), self.watch, rules)

    async def look(self, rules: dict[str, Runaway] = RULES) -> list[tuple[str, str]]:
        """What was paused: principal's subject and session."""
        before = len(self.seen)
        await look(an_op(self.seen), self.watch, self.pauses, rules, self.unstopped)
        found = [said for said in self.seen[before:] if isinstance(said, RunawayPaused)]
        return [(said.principal.partition("#")[2], said.session) for said in found]

    async def pass_s(self, seconds: float, rules: dict[str, Runaway] = RULES) -> None:
        """Time goes by, and the watch looks as it goes."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            self.now = min(until, self.now + timedelta(seconds=20))
            await self.fold(rules)

    def ask(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        return self.superuser.execute(statement, values).fetchall()


Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture
def play(fresh_store: StoreUrls) -> Play:
    def run(story: Callable[[Scene], Awaitable[None]]) -> None:
        async def bounded() -> None:
            options = "-c search_path=shipworthy,public -c timezone=UTC"
            with psycopg.connect(fresh_store.superuser_url, autocommit=True, options=options) as superuser:
                async with asyncio.timeout(60), Store(fresh_store.url) as store:
                    scene = Scene(
                        superuser, fresh_store.superuser_url, store, StorePauses(store), StoreSpendWatch(store)
                    )
                    scene.watch = StoreSpendWatch(store, lambda: scene.now)
                    before = scene.now - timedelta(seconds=1)
                    superuser.execute("update spend_mark set folded_to = %s, seen_at = %s", (before, before))
                    await story(scene)

        asyncio.run(bounded())

    return run


async def usual(scene: Scene, windows: int = 12, nano: int = 500) -> None:
    """Ada's session s-1 and bob's spend ``nano`` a minute for a while."""
    for _ in range(windows):
        for subject in ("ada", "bob"):
            scene.spend(nano, subject, "s-1")
        await scene.pass_s(60)
    await scene.pass_s(80)


def test_a_session_that_runs_away_is_paused_and_its_neighbours_are_not(play: Play) -> None:
    """The narrowest stop: neither the principal, nor its other session, nor another's session of the same name."""

    async def story(scene: Scene) -> None:
        await usual(scene)
        scene.spend(900, "ada", "s-2")
        scene.spend(900, "bob", "s-1")
        assert await scene.look() == []
        for _ in range(3):
            scene.spend(2_000, "ada", "s-1")
        assert await scene.look() == [("ada", "s-1")]
        assert await scene.look() == [], "what it spent neither counts again nor against its principal"
        (pause,) = await scene.pauses.active(ACME)
        assert (pause.kind, pause.principal, pause.session, pause.by) == ("session", f"{ISSUER}#ada", "s-1", "runaway")
        assert "spent $0.000006000 in the last 1 min" in pause.reason
        assert "its normal is $0.000000500 a minute, the median of 12 windows of the last 7 days" in pause.reason
        assert "10 times that is $0.000005000 a minute" in pause.reason
        acts = scene.ask("select actor, act, tenant from admin_act")
        assert acts == [("runaway", "spend.pause", ACME)]
        (said,) = [each for each in scene.seen if isinstance(each, RunawayPaused)]
        command = f"shipworthy cost release session s-1 --of '{ISSUER}#ada' --tenant acme"
        assert said.release.startswith(command.replace("'", "")) or said.release.startswith(command)

    play(story)


def test_a_principal_that_spreads_over_sessions_is_paused(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await usual(scene)
        for number in range(20):
            scene.spend(600, "ada", f"new-{number}")
        assert await scene.look() == [("ada", "")]
        assert [pause.kind for pause in await scene.pauses.active(ACME)] == ["principal"]

    play(story)


def test_only_what_is_watched_is_paused(play: Play) -> None:
    async def story(scene: Scene) -> None:
        rules = {ACME: replace(RULE, watch=(Watched.PRINCIPAL,))}
        await usual(scene)
        scene.spend(20_000, "ada", "s-1")
        scene.spend(20_000, "sam", "s-1", tenant="unwatched")
        assert await scene.look(rules) == [("ada", "")]

    play(story)


def test_a_spike_pauses_once_and_after_a_release_the_window_begins_anew(play: Play) -> None:
    """The same spike does not pause again; a new one does."""

    async def story(scene: Scene) -> None:
        await usual(scene)
        scene.spend(9_000, "ada", "s-1")
        assert await scene.look() == [("ada", "s-1")]
        (pause,) = await scene.pauses.active(ACME)
        await release(scene, pause, scene.now + timedelta(seconds=5))
        assert await scene.look() == []
        await scene.pass_s(15)
        scene.spend(4_000, "ada", "s-1")
        assert await scene.look() == [], "4,000 alone is within ten times normal"
        scene.spend(4_000, "ada", "s-1")
        assert await scene.look() == [("ada", "s-1")]

    play(story)


async def release(scene: Scene, pause: Pause, at: datetime) -> None:
    """Times of pauses are the store's own: here they are moved to the scene's."""
    scene.ask(
        "update pause set at = %s, released_at = %s, released_by = 'olga', released_because = 'ok'"
        " where id = %s returning id",
        scene.now, at, pause.id,
    )  # fmt: skip


def test_a_runaway_is_not_learned(play: Play) -> None:
    """Windows that touch a pause are no part of the normal, neither their own nor everyone's."""

    async def story(scene: Scene) -> None:
        await usual(scene)
        before = await normals(scene, "ada")
        scene.spend(9_000, "ada", "s-1")
        assert await scene.look() == [("ada", "s-1")]
        scene.ask("update pause set at = %s returning id", scene.now)
        for _ in range(3):
            scene.spend(9_000, "ada", "s-1", at=scene.now + timedelta(seconds=1))  # what was still running
            await scene.pass_s(40)
        await scene.pass_s(180)
        assert await normals(scene, "ada") == before
        # found out only after its window had been closed
        scene.spend(50_000, "bob", "s-1")
        await scene.pass_s(130)
        assert await normals(scene, "bob") == Normal(13, 500)
        await scene.look()
        scene.ask(
            "insert into pause (tenant, id, kind, principal, session, reason, at, by)"
            " values (%s, %s, 'principal', %s, '', 'late', %s, 'eve') returning id",
            ACME, an_op().id, f"{ISSUER}#bob", scene.now - timedelta(seconds=120),
        )  # fmt: skip
        assert await normals(scene, "bob") == Normal(12, 500)

    play(story)


async def normals(scene: Scene, subject: str, session: str = "s-1") -> Normal:
    """Of a session; never from memory."""
    whose = Spender(ACME, Watched.SESSION, f"{ISSUER}#{subject}", session)
    fresh = StoreSpendWatch(scene.store, lambda: scene.now)
    await catch_up(an_op(), fresh, RULES)
    return (await fresh.normals(an_op(), RULES, {whose}))[whose]


def test_a_newcomer_is_compared_with_the_tenants_normal(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await usual(scene, nano=2_000)
        scene.spend(19_000, "new", "n-1")
        assert await scene.look() == []
        scene.spend(2_000, "new", "n-1")
        assert await scene.look() == [("new", "n-1")]
        (pause,) = await scene.pauses.active(ACME)
        assert "it is new, and the normal of the tenant's sessions is $0.000002000 a minute" in pause.reason

    play(story)


def test_while_nothing_is_known_the_least_stands_for_normal(play: Play) -> None:
    async def story(scene: Scene) -> None:
        scene.spend(10_000, "ada", "s-1")
        assert await scene.look() == []
        scene.spend(1, "ada", "s-1")
        assert await scene.look() == [("ada", "s-1")]

    play(story)


def test_what_nobody_is_known_to_have_spent_does_not_count(play: Play) -> None:
    """Refusals and replays are free; what a sweeper presumed for a dead worker was perhaps never spent."""

    async def story(scene: Scene) -> None:
        scene.spend(0, "ada", "s-1")
        for _ in range(5):
            scene.spend(90_000, "ada", "s-1", flags=("presumed",))
        assert await scene.look() == []
        await scene.pass_s(90)
        assert scene.ask("select * from spend_slot") == []

    play(story)


def test_sums_are_exact_whatever_the_order_of_commits(play: Play) -> None:
    """A row is stamped before its commit: transactions that stay open for a while are neither lost nor counted twice."""

    async def story(scene: Scene) -> None:
        draw, truth = random.Random(3), Counter[str]()
        tenants = [
            f"t{number}" for number in range(9)
        ]  # one a transaction: settlements of one tenant wait for each other
        rules = {tenant: replace(RULE, window_minutes=60) for tenant in tenants}  # no slot is trimmed meanwhile
        running: dict[str, tuple[int, psycopg.Connection]] = {}
        for tick in range(60):
            tenant = draw.choice([each for each in tenants if each not in running])
            conn = psycopg.connect(scene.url, options="-c search_path=shipworthy")
            for _ in range(draw.randint(0, 3)):
                nano = draw.randint(1, 999)
                scene.spend_over(conn, nano, "ada", "", scene.now, tenant=tenant)
                truth[tenant] += nano
            running[tenant] = (tick + draw.choice((0, 0, 1, 3, 7)), conn)
            for tenant, (until, due) in list(running.items()):
                if until <= tick or len(running) == len(tenants):
                    due.commit()
                    due.close()
                    del running[tenant]
            scene.now += timedelta(seconds=draw.choice((1, 4, 9)))
            await scene.fold(rules)
        for _, conn in running.values():
            conn.commit()
            conn.close()
        await scene.pass_s(60, rules)
        found = scene.ask("select tenant, sum(nano)::bigint from spend_slot group by 1")
        assert {str(name): nano for name, nano in found} == {name: nano for name, nano in truth.items() if nano}

    play(story)


def test_one_control_plane_looks_at_a_time(play: Play) -> None:
    async def story(scene: Scene) -> None:
        scene.spend(50_000, "ada", "s-1")
        with psycopg.connect(scene.url, options="-c search_path=shipworthy") as other:
            other.execute("select * from spend_mark for update")
            assert await scene.look() == []
        assert await scene.look() == [("ada", "s-1")]

    play(story)


def test_long_unwatched_is_not_learned_and_costs_nothing(play: Play) -> None:
    """After a day without a control plane the watch is at work at once, with the last hour."""

    async def story(scene: Scene) -> None:
        for hours in (23, 2, 0.9):
            scene.spend(700, "ada", "s-1", at=scene.now + timedelta(hours=24 - hours))
        scene.now += timedelta(hours=24)
        await scene.fold()
        scene.now += timedelta(seconds=10)
        looks = 1
        while not await scene.fold():  # a look takes a second at most; the next one goes on
            looks += 1
        assert looks < 60
        assert [
            row[0]
            for row in scene.ask("select nano_per_min from spend_window where principal <> '' and kind = 'session'")
        ] == [700]

    play(story)


def test_a_window_remembers_a_thousand_at_most_and_the_median_of_all(play: Play) -> None:
    async def story(scene: Scene) -> None:
        scene.ask("select 1")
        scene.superuser.execute(
            "insert into spend_slot select %s, %s, 'https://login.example#u' || n, '', n from generate_series(1, 1501) n",
            (ACME, scene.now),
        )
        await scene.pass_s(140)
        kept = scene.ask("select count(*) from spend_window where principal <> ''")
        assert kept == [(1_000,)]
        assert scene.ask("select nano_per_min from spend_window where principal = ''") == [(751,)]
        assert scene.ask("select count(*) from spend_slot") == [(1501,)]
        await scene.pass_s(200)
        assert scene.ask("select count(*) from spend_slot") == [(0,)], "trimmed"

    play(story)


def test_the_store_names_a_spender_as_the_workers_do(play: Play) -> None:
    """Else a pause would hit nobody."""
    principals = (
        Principal("t", "ada", issuer=ISSUER),
        Principal("t", "ada", issuer="https://" + "i" * 600),
        Principal("t", "service:nightly", kind="service", key_id="abc"),
        Principal("t", "ada", actor="service:nightly", issuer=ISSUER, key_id="abc"),
        Principal("t", "ä 'b#c", actor="bot", issuer=ISSUER),
    )

    async def story(scene: Scene) -> None:
        for who in principals:
            ((said,),) = scene.ask("select spender(%s, %s, %s, %s)", who.issuer, who.subject, who.actor, who.key_id)
            assert said == spender(who)

    play(story)
