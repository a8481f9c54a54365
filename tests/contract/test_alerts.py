"""Budget alerts over a real PostgreSQL: each threshold once, whoever looks; each delivery until it is taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

import psycopg
import pytest
from msgspec import structs
from tests.conftest import StoreUrls
from tests.contract.conftest import Dial
from tests.contract.receiver import Answer, Receiver

from shipworthy.adapters.alerts.webhook import WebhookPoster
from shipworthy.adapters.store.alerts import AlertBounds, StoreAlerts
from shipworthy.adapters.store.assertions import assert_store
from shipworthy.adapters.store.pool import Store
from shipworthy.control.alert_delivery import AGAIN_S_MAX, GIVE_UP_S, deliver
from shipworthy.control.alerts import Rounds, forget, look
from shipworthy.kit.memory_plane import a_snapshot
from shipworthy.kit.webhook import DELIVERY_HEADER, SIGNATURE_HEADER, verify
from shipworthy.model.alert import Alert, Delivery
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.money import Period, period_bounds
from shipworthy.model.observation import AlertPosted, BudgetAlert, Observation
from shipworthy.model.op import Kind, Op
from shipworthy.model.policy import Budget, Snapshot
from shipworthy.model.reading import EVERY_TENANT

BERLIN = ZoneInfo("Europe/Berlin")
CAP = 1_000_000_007  # a prime: no threshold is a whole number of nano-dollars
SECRET = "a secret of more than sixteen bytes"
BUDGET = Budget(CAP, Period.MONTH, BERLIN, (500, 800, 1000))


class DialClock:
    """The dial as an Op's clock."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    def unix_ns(self) -> int:
        return int(self._dial.at.timestamp() * 1e9)

    def monotonic_ns(self) -> int:
        return self.unix_ns()


@dataclass
class Plane:
    """One control plane's part: its store, its turn, what it said."""

    alerts: StoreAlerts
    dial: Dial
    superuser_url: str
    said: list[Observation] = field(default_factory=list)
    rounds: Rounds = field(default_factory=Rounds)

    def op(self) -> Op:
        return Op(Kind.JOB, DialClock(self.dial), self.said.append)

    async def look(self, snapshot: Snapshot, *, deliver: bool = True) -> Sequence[Alert]:
        return await look(self.op(), self.alerts, snapshot, self.rounds, deliver=deliver)

    async def post(self, url: str, snapshot: Snapshot, limit: int = 8) -> list[Delivery]:
        poster = WebhookPoster(url, SECRET, DialClock(self.dial), total_s=2)
        claimed = await self.alerts.claim(limit)
        return [await deliver(self.op(), self.alerts, poster, alert, snapshot) for alert in claimed]

    async def one(self) -> Alert:
        (alert,) = await self.alerts.page(EVERY_TENANT, 10)
        return alert

    def charge(self, nano: int, key: str = "tenant", *, budget: Budget = BUDGET, tenant: str = "northwind") -> None:
        """The counter of a level in the running period, as the recorder would have left it."""
        start, _ = period_bounds(budget.per, budget.zone, self.dial.at)
        self.execute(
            "insert into shipworthy.counter (tenant, key, period, period_start, cap_nano, charged_nano)"
            " values (%s, %s, %s, %s, %s, %s) on conflict (tenant, key, period, period_start)"
            " do update set charged_nano = excluded.charged_nano",
            (tenant, key, budget.per.value, start, budget.cap_nano, nano),
        )

    def execute(self, statement: str, values: Sequence[object] = ()) -> None:
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            conn.execute(statement, values)


@asynccontextmanager
async def plane(urls: StoreUrls, dial: Dial | None = None, bounds: AlertBounds | None = None) -> AsyncGenerator[Plane]:
    dial = dial or Dial()
    async with Store(urls.url) as store:
        yield Plane(StoreAlerts(store, bounds, dial), dial, urls.superuser_url)


def snapshot_with(
    budget: Budget | None = BUDGET,
    *,
    team: Budget | None = None,
    use_case: Budget | None = None,
    each: Budget | None = None,
) -> Snapshot:
    """Two tenants; the budgets stand at northwind, the use case's at every tenant."""
    plain = a_snapshot()
    northwind = plain.tenants["northwind"]
    teams = {name: structs.replace(found, budget=team) for name, found in northwind.teams.items()}
    roles = tuple(structs.replace(role, each_end_user=each) for role in northwind.roles)
    northwind = structs.replace(northwind, budget=budget, teams=MappingProxyType(teams), roles=roles)
    southwind = structs.replace(plain.tenants["southwind"], budget=None)
    use_cases = {name: structs.replace(found, name=name, budget=use_case) for name, found in plain.use_cases.items()}
    tenants = MappingProxyType({"northwind": northwind, "southwind": southwind})
    return structs.replace(plain, tenants=tenants, use_cases=MappingProxyType(use_cases))


def thresholds(alerts: Sequence[Alert]) -> list[tuple[str, int, int]]:
    return [(alert.key, alert.cap_nano, alert.permille) for alert in alerts]


# ---------------------------------------------------------------------------------------------- raised


def test_a_threshold_is_raised_at_the_nano_and_once(fresh_store: StoreUrls) -> None:
    """One nano-dollar below the share nothing is said; at it, once for ever."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(500_000_003)  # half of the cap is 500,000,003.5
            assert await here.look(snapshot_with()) == ()
            here.charge(500_000_004)
            assert thresholds(await here.look(snapshot_with())) == [("tenant", CAP, 500)]
            for _ in range(3):
                here.dial.turn(60)
                assert await here.look(snapshot_with()) == ()
            (said,) = here.said
            assert isinstance(said, BudgetAlert)
            assert (said.budget, said.threshold, said.charged_nano, said.cap_nano) == (
                "tenant",
                "0.5",
                500_000_004,
                CAP,
            )
            assert said.period_start == "2026-05-31T22:00:00+00:00"

    asyncio.run(scene())


def test_thresholds_passed_at_once_come_in_order(fresh_store: StoreUrls) -> None:
    """A single dear request may pass them all: each has its alert, the smaller first, in the store, the log and the post."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP + 5)
            raised = await here.look(snapshot_with())
            assert [alert.permille for alert in raised] == [500, 800, 1000]
            assert [said.threshold for said in here.said if isinstance(said, BudgetAlert)] == ["0.5", "0.8", "1"]
            with Receiver() as receiver:
                for _ in range(3):
                    assert await here.post(receiver.url, snapshot_with()) == [Delivery.DELIVERED]
            assert [json.loads(post.body)["threshold"] for post in receiver.posts] == ["0.5", "0.8", "1"]

    asyncio.run(scene())


def test_a_changed_cap_is_another_budget(fresh_store: StoreUrls) -> None:
    """A raised cap has thresholds of its own in the same period; the old ones are never said again."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP * 9 // 10)
            small, large = snapshot_with(), snapshot_with(structs.replace(BUDGET, cap_nano=CAP * 2))
            assert thresholds(await here.look(small)) == [("tenant", CAP, 500), ("tenant", CAP, 800)]
            assert await here.look(large) == ()
            here.charge(CAP)
            assert thresholds(await here.look(large)) == [("tenant", CAP * 2, 500)]
            assert thresholds(await here.look(small)) == [("tenant", CAP, 1000)]
            assert await here.look(large) == ()

    asyncio.run(scene())


def test_a_new_period_begins_afresh_and_the_last_may_still_pass(fresh_store: StoreUrls) -> None:
    """A long stream is charged to the period in which it arrived, minutes after that has ended: its alert is not lost."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.dial.at = datetime(2026, 6, 30, 21, 59, 50, tzinfo=UTC)  # ten seconds before July in Berlin
            here.charge(CAP // 4)
            assert await here.look(snapshot_with()) == ()
            june = here.dial.at
            here.dial.turn(300)
            here.charge(CAP)  # July
            july = await here.look(snapshot_with())
            assert {alert.period_start.astimezone(BERLIN).month for alert in july} == {7}
            here.dial.at, now = june, here.dial.at
            here.charge(CAP * 6 // 10)
            here.dial.at = now
            (late,) = await here.look(snapshot_with())
            assert (late.period_start.astimezone(BERLIN).month, late.permille) == (6, 500)

    asyncio.run(scene())


def test_every_level_that_has_thresholds_is_watched_and_no_other(fresh_store: StoreUrls) -> None:
    """Teams, use cases in every tenant, each end user; a tenant's own alert is never another's."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            half = Budget(100, Period.DAY, BERLIN, (500,))
            snapshot = snapshot_with(structs.replace(BUDGET, alert_at_permille=()), team=half, use_case=half, each=half)
            here.charge(CAP)
            here.charge(50, "team=support", budget=half)
            here.charge(50, "use_case=support", budget=half, tenant="southwind")
            here.charge(99, "use_case=retired", budget=half)
            here.charge(49, "end_user=ann", budget=half)
            here.charge(50, "end_user=bob", budget=half)
            raised = await here.look(snapshot) + await here.look(snapshot)
            assert {(alert.tenant, alert.key) for alert in raised} == {
                ("northwind", "team=support"),
                ("southwind", "use_case=support"),
                ("northwind", "end_user=bob"),
            }
            assert [alert.key for alert in await here.alerts.page("southwind", 10)] == ["use_case=support"]
            assert len(await here.alerts.page(EVERY_TENANT, 10)) == 3
            assert await here.alerts.page("eastwind", 10) == []
            with pytest.raises(ValueError, match="empty scope"):
                await here.alerts.page("", 10)

    asyncio.run(scene())


def test_end_users_are_looked_at_page_by_page(fresh_store: StoreUrls) -> None:
    """However many there are, a look is bounded, and after enough looks each of them was seen, in both periods' tables."""

    async def scene() -> None:
        bounds = AlertBounds(raised_max=3, end_users_max=10)
        async with plane(fresh_store, bounds=bounds) as here:
            day, hour = Budget(100, Period.DAY, BERLIN, (500, 900)), Budget(100, Period.HOUR, BERLIN, (500,))
            snapshot = snapshot_with(None, each=day)
            northwind = snapshot.tenants["northwind"]
            roles = (structs.replace(northwind.roles[0], each_end_user=hour), *northwind.roles[1:])
            tenants = {"northwind": structs.replace(northwind, roles=roles)}
            snapshot = structs.replace(snapshot, tenants=MappingProxyType(tenants))
            for number in range(35):
                here.charge(100, f"end_user=u{number:02}", budget=day)
                here.charge(60, f"end_user=u{number:02}", budget=hour)
            seen = []
            for _ in range(60):
                raised = await here.look(snapshot)
                assert len(raised) <= 3
                seen += [(alert.key, alert.period, alert.permille) for alert in raised]
            assert len(seen) == len(set(seen)) == 35 * 3

    asyncio.run(scene())


def test_two_control_planes_raise_one_alert(fresh_store: StoreUrls) -> None:
    """Any number may look at the same moment: the row, the observation and the delivery are one."""

    async def scene() -> None:
        dial = Dial()
        async with plane(fresh_store, dial) as one, plane(fresh_store, dial) as two:
            for number in range(20):
                one.charge(CAP, f"end_user=u{number}", budget=BUDGET)
            one.charge(CAP)
            snapshot = snapshot_with(each=BUDGET)
            with Receiver(usual=Answer(silent_s=0.05)) as receiver:
                for _ in range(12):
                    await asyncio.gather(one.look(snapshot), two.look(snapshot))
                    await asyncio.gather(one.post(receiver.url, snapshot), two.post(receiver.url, snapshot))
            said = [seen.alert_id for here in (one, two) for seen in here.said if isinstance(seen, BudgetAlert)]
            posted = [post.headers[DELIVERY_HEADER] for post in receiver.posts]
            assert len(said) == len(set(said)) == 63
            assert sorted(posted) == sorted(said)

    asyncio.run(scene())


def test_what_a_dead_control_plane_left_unsaid_another_says(fresh_store: StoreUrls) -> None:
    """The alert stands before it is said; killed in between, it is said half a minute later, and delivered only then."""

    async def scene() -> None:
        dial = Dial()
        async with plane(fresh_store, dial) as dead, plane(fresh_store, dial) as alive:
            dead.charge(CAP // 2 + 1)
            snapshot = snapshot_with()
            watches, users = dead.rounds.next(snapshot, dial.at)
            (raised,) = (await dead.alerts.raise_passed(watches, users, True)).alerts  # and is killed
            dial.turn(29)
            assert await alive.look(snapshot) == ()
            assert await alive.alerts.claim(8) == []
            dial.turn(1)
            assert [alert.id for alert in await alive.look(snapshot)] == [raised.id]
            assert [type(said) for said in alive.said] == [BudgetAlert]
            assert [alert.id for alert in await alive.alerts.claim(8)] == [raised.id]

    asyncio.run(scene())


def test_a_budget_without_money_or_thresholds_is_not_looked_at(fresh_store: StoreUrls) -> None:
    async def scene() -> None:
        async with plane(fresh_store) as here:
            assert Rounds().next(snapshot_with(structs.replace(BUDGET, cap_nano=0)), here.dial.at) == ([], None)
            assert Rounds().next(snapshot_with(structs.replace(BUDGET, alert_at_permille=())), here.dial.at) == (
                [],
                None,
            )

    asyncio.run(scene())


def test_when_it_will_be_exhausted_at_the_pace_of_the_last_hour(fresh_store: StoreUrls) -> None:
    """Half the cap in the last half hour: the rest lasts half an hour more. Others' money is no part of it."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            for minutes, team, nano in (
                (90, "support", CAP),
                (30, "support", CAP // 4),
                (10, "support", CAP // 4),
                (5, "sales", CAP),
            ):
                here.execute(AN_EXCHANGE, ("northwind", here.dial.at - timedelta(minutes=minutes), team, nano))
            here.charge(CAP // 2, "team=support")
            snapshot = snapshot_with(None, team=structs.replace(BUDGET, alert_at_permille=(400,)))
            await here.look(snapshot)
            alert = await here.one()
            assert alert.exhausted_at is not None
            assert abs((alert.exhausted_at - here.dial.at) - timedelta(minutes=30)) < timedelta(seconds=2)
            assert isinstance(here.said[0], BudgetAlert)
            assert here.said[0].exhausted_at == alert.exhausted_at.isoformat()

    asyncio.run(scene())


AN_EXCHANGE = """
insert into shipworthy.exchange
select * from jsonb_populate_record(null::shipworthy.exchange, (
  select jsonb_object_agg(column_name, case
    when data_type = 'text' then '""' when data_type in ('jsonb', 'ARRAY') then '[]' when data_type = 'boolean' then 'false'
    when data_type in ('bigint', 'integer') then '0' else 'null' end::jsonb)
  from information_schema.columns where table_schema = 'shipworthy' and table_name = 'exchange')
  || jsonb_build_object('tenant', %s::text, 'arrived_at', %s::timestamptz, 'team', %s::text, 'charged_nano', %s::bigint,
                        'id', gen_random_uuid(), 'outcome', 'served', 'recorded_at', now()))
"""


# ---------------------------------------------------------------------------------------------- delivered


def test_what_is_posted(fresh_store: StoreUrls) -> None:
    """Everything that a person needs, exact; signed; the same words and id at every try."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP // 2 + 1)
            await here.look(snapshot_with())
            with Receiver(Answer(500)) as receiver:
                assert await here.post(receiver.url, snapshot_with()) == [Delivery.PENDING]
                here.dial.turn(10)
                assert await here.post(receiver.url, snapshot_with()) == [Delivery.DELIVERED]
            first, again = receiver.posts
            assert first.body == again.body
            assert first.headers[DELIVERY_HEADER] == again.headers[DELIVERY_HEADER] == str((await here.one()).id)
            verify(SECRET, again.headers[SIGNATURE_HEADER], again.body, here.dial.at.timestamp(), 1)
            assert json.loads(first.body) == {
                "type": "budget.alert",
                "id": str((await here.one()).id),
                "deployment": "northwind",
                "environment": "production",
                "tenant": "northwind",
                "level": "tenant",
                "threshold": "0.5",
                "period": "month",
                "period_start": "2026-05-31T22:00:00+00:00",
                "period_end": "2026-06-30T22:00:00+00:00",
                "cap_usd": "1.000000007",
                "charged_usd": "0.500000004",
                "cap_nano": CAP,
                "charged_nano": 500_000_004,
                "raised_at": "2026-06-15T12:00:00.250000+00:00",
                "exhausted_at": None,
            }

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (Answer(204, body=b""), Delivery.DELIVERED),
        (Answer(500), Delivery.PENDING),
        (Answer(503), Delivery.PENDING),
        (Answer(408), Delivery.PENDING),
        (Answer(425), Delivery.PENDING),
        (Answer(429), Delivery.PENDING),
        (Answer(raw=b""), Delivery.PENDING),
        (Answer(silent_s=10), Delivery.PENDING),
        (Answer(302), Delivery.FAILED),
        (Answer(400), Delivery.FAILED),
        (Answer(401), Delivery.FAILED),
        (Answer(410), Delivery.FAILED),
    ],
    ids=lambda value: f"{value.status}{value.raw}{value.silent_s}" if isinstance(value, Answer) else value,
)
def test_how_a_try_ends(fresh_store: StoreUrls, answer: Answer, ends: Delivery) -> None:
    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP // 2 + 1)
            await here.look(snapshot_with())
            with Receiver(answer) as receiver:
                assert await here.post(receiver.url, snapshot_with()) == [ends]
                here.dial.turn(3_000)
                again = await here.post(receiver.url, snapshot_with())
            assert again == ([Delivery.DELIVERED] if ends is Delivery.PENDING else [])
            alert = await here.one()
            assert alert.delivery is (ends if ends is Delivery.FAILED else Delivery.DELIVERED)
            assert (alert.ended_at is None) == (alert.delivery is Delivery.PENDING)
            tried = [said for said in here.said if isinstance(said, AlertPosted)]
            assert [said.tries for said in tried] == list(range(1, len(tried) + 1))

    asyncio.run(scene())


def test_a_receiver_that_is_away_for_a_day_is_given_up(fresh_store: StoreUrls) -> None:
    """Waits grow to an hour, and end after a day; what the receiver asks for is honoured, within an hour."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP // 2 + 1)
            await here.look(snapshot_with())
            raised_at, waits = here.dial.at, []
            with Receiver(usual=Answer(503)) as receiver:
                while (await here.post(receiver.url, snapshot_with())) == [Delivery.PENDING]:
                    wait_s = ((await here.one()).due_at - here.dial.at).total_seconds()
                    waits.append(wait_s)
                    here.dial.turn(wait_s - 0.1)
                    assert await here.alerts.claim(8) == []
                    here.dial.turn(0.2)
            assert waits[0] <= 2
            assert max(waits) <= AGAIN_S_MAX
            assert 24 < len(waits) < 64
            assert GIVE_UP_S - AGAIN_S_MAX <= (here.dial.at - raised_at).total_seconds() <= GIVE_UP_S
            alert = await here.one()
            assert (alert.delivery, alert.last_status) == (Delivery.FAILED, 503)
            assert alert.last_reason == "given up after 24 hours: the receiver answered 503"

    asyncio.run(scene())


def test_retry_after_is_honoured(fresh_store: StoreUrls) -> None:
    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP // 2 + 1)
            await here.look(snapshot_with())
            with Receiver(Answer(429, {"retry-after": "120"}), Answer(429, {"retry-after": "86400"})) as receiver:
                for expected in (120, 3_600):
                    assert await here.post(receiver.url, snapshot_with()) == [Delivery.PENDING]
                    assert ((await here.one()).due_at - here.dial.at).total_seconds() == expected
                    here.dial.turn(expected)
                assert await here.post(receiver.url, snapshot_with()) == [Delivery.DELIVERED]

    asyncio.run(scene())


def test_killed_between_post_and_mark_it_is_delivered_again_under_the_same_id(fresh_store: StoreUrls) -> None:
    """At least once: the claim of the dead runs out, and the receiver can tell the second by its delivery id."""

    async def scene() -> None:
        dial = Dial()
        async with plane(fresh_store, dial) as dead, plane(fresh_store, dial) as alive:
            dead.charge(CAP // 2 + 1)
            await dead.look(snapshot_with())
            with Receiver() as receiver:
                (claimed,) = await dead.alerts.claim(8)
                await WebhookPoster(receiver.url, SECRET, DialClock(dial)).post(claimed.id, b"{}")  # and is killed
                dial.turn(19)
                assert await alive.post(receiver.url, snapshot_with()) == []
                dial.turn(1)
                assert await alive.post(receiver.url, snapshot_with()) == [Delivery.DELIVERED]
            assert len({post.headers[DELIVERY_HEADER] for post in receiver.posts}) == 1
            assert len(receiver.posts) == 2
            assert (await alive.one()).tries == 2

    asyncio.run(scene())


def test_a_late_word_of_a_claim_that_ran_out(fresh_store: StoreUrls) -> None:
    """That it was delivered stands, whoever says so; that it failed counts only while the claim is one's own."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP)
            await here.look(snapshot_with(structs.replace(BUDGET, alert_at_permille=(500,))))
            (slow,) = await here.alerts.claim(8)
            here.dial.turn(31)
            (second,) = await here.alerts.claim(8)
            await here.alerts.mark(slow, Delivery.FAILED, 400, "late", 0)
            assert (await here.one()).delivery is Delivery.PENDING
            await here.alerts.mark(slow, Delivery.DELIVERED, 200, "", 0)
            await here.alerts.mark(second, Delivery.FAILED, 400, "no", 0)
            assert (await here.one()).delivery is Delivery.DELIVERED

    asyncio.run(scene())


def test_a_store_that_is_away_when_a_delivery_ends_costs_a_repetition(fresh_store: StoreUrls) -> None:
    """The mark is lost, the claim runs out, the receiver gets it again: nothing is lost and nothing hangs."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP // 2 + 1)
            await here.look(snapshot_with())

            async def away(*_: object) -> None:
                raise StoreUnavailable("store.connection")

            mark, here.alerts.mark = here.alerts.mark, away  # type: ignore[method-assign]
            with Receiver() as receiver:
                assert await here.post(receiver.url, snapshot_with()) == [Delivery.DELIVERED]
                here.alerts.mark = mark  # type: ignore[method-assign]
                here.dial.turn(30)
                assert await here.post(receiver.url, snapshot_with()) == [Delivery.DELIVERED]
            assert (await here.one()).delivery is Delivery.DELIVERED

    asyncio.run(scene())


def test_without_a_webhook_alerts_are_said_and_never_posted(fresh_store: StoreUrls) -> None:
    """Nor are they posted when one is configured later: an old alarm is no news."""

    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP // 2 + 1)
            await here.look(snapshot_with(), deliver=False)
            assert len(here.said) == 1
            assert await here.alerts.claim(8) == []
            assert (await here.one()).delivery is Delivery.NONE

    asyncio.run(scene())


def test_alerts_leave_with_the_record_but_not_while_their_period_runs(fresh_store: StoreUrls) -> None:
    async def scene() -> None:
        async with plane(fresh_store) as here:
            here.charge(CAP // 2 + 1)
            await here.look(snapshot_with())
            assert await forget(here.op(), here.alerts, retention_days=1) == 0
            here.dial.at = datetime(2026, 7, 3, tzinfo=UTC)
            assert await forget(here.op(), here.alerts, retention_days=10) == 0
            assert await forget(here.op(), here.alerts, retention_days=1) == 1

    asyncio.run(scene())


def test_the_tables_keep_tenants_apart(fresh_store: StoreUrls) -> None:
    """The server's own start check accepts the migration: policies forced, no tenant writes or sees another's alert."""

    async def scene() -> None:
        async with plane(fresh_store) as here, Store(fresh_store.url) as store:
            await assert_store(store)
            here.charge(CAP)
            await here.look(snapshot_with())
            async with store.tenant("southwind") as conn:
                assert await (await conn.execute("select count(*) from alert")).fetchone() == (0,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with store.tenant("northwind") as conn:
                    await conn.execute("update alert set delivery = 'none'")

    asyncio.run(scene())
