"""Looks are bounded and take turns: whatever the number of budgets, each is compared, and none twice before all were."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from shipworthy.control.alert_delivery import AGAIN_S_MAX, GIVE_UP_S, TRIES_MAX, verdict
from shipworthy.control.alerts import WATCHED_MAX, Rounds, watched
from shipworthy.kit.memory_alerts import RAISED_AT as AT
from shipworthy.kit.memory_alerts import an_alert
from shipworthy.kit.memory_plane import a_snapshot
from shipworthy.model.alert import EACH_END_USER, Delivery, Posted, Watch
from shipworthy.model.money import Period
from shipworthy.model.policy import Budget, Snapshot, Team

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
MONTHLY = Budget(1_000, Period.MONTH, ZoneInfo("UTC"), (500, 800))


def with_teams(count: int) -> Snapshot:
    plain = a_snapshot()
    northwind = structs.replace(
        plain.tenants["northwind"],
        budget=None,
        teams=MappingProxyType({f"t{number}": Team(f"t{number}", MONTHLY) for number in range(count)}),
    )
    return structs.replace(plain, tenants=MappingProxyType({"northwind": northwind}))


def test_more_budgets_than_a_look_compares_take_turns() -> None:
    rounds, snapshot, seen = Rounds(), with_teams(4_000), set[Watch]()
    for turn in range(1, 6):
        watches, users = rounds.next(snapshot, NOON)
        assert users is None
        assert len(watches) <= WATCHED_MAX + 1
        if turn == 1:
            seen.update(watches)
            assert len(seen) == len(watches) == WATCHED_MAX
        seen.update(watches)
    assert len(seen) == 8_000


def test_few_budgets_are_compared_each_time_and_once() -> None:
    rounds, snapshot = Rounds(), with_teams(3)
    for _ in range(3):
        watches, _ = rounds.next(snapshot, NOON)
        assert len(watches) == len(set(watches)) == 6


def test_a_reload_begins_with_the_new_budgets() -> None:
    rounds = Rounds()
    rounds.next(with_teams(4_000), NOON)
    watches, _ = rounds.next(with_teams(2), NOON)
    assert {watch.key for watch in watches} == {"team=t0", "team=t1"}


def test_roles_that_share_end_users_are_watched_once() -> None:
    """One budget, whichever role asserts the end user; two different ones on the same counters are both watched."""
    snapshot = with_teams(0)
    northwind = snapshot.tenants["northwind"]
    roles = tuple(structs.replace(role, each_end_user=MONTHLY) for role in northwind.roles)
    same = structs.replace(northwind, roles=roles)
    snapshot = structs.replace(snapshot, tenants=MappingProxyType({"northwind": same}))
    assert [level.key for level in watched(snapshot)] == [EACH_END_USER]
    watches, users = Rounds().next(snapshot, NOON)
    assert users is not None
    assert (users.tenant, users.period, users.after) == ("northwind", "month", "")
    assert [watch.permille for watch in watches] == [500, 800]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**18), st.integers(1, 1000), st.integers(-2, 2))
def test_a_threshold_is_exact(cap: int, permille: int, off: int) -> None:
    """The least charge that passes is the least whole number with charge × 1000 ≥ cap × share: integers, no rounding."""
    watch = Watch("t", "tenant", "month", NOON, NOON, cap, permille)
    charged = watch.at_nano + off
    assert (charged >= watch.at_nano) == (charged * 1000 >= cap * permille)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, 599),
    st.integers(1, 2 * TRIES_MAX),
    st.floats(0, 2 * GIVE_UP_S),
    st.floats(0.5, 1.0),
    st.floats(0, 10**9),
)
def test_every_try_ends_in_one_of_three_ways(
    status: int, tries: int, age_s: float, jitter: float, retry_after_s: float
) -> None:
    """Delivered on 2xx alone; given up for good on what repeating cannot change; else again, later, but not for ever."""
    posted = Posted(status, "", retry_after_s)
    found = verdict(an_alert(1, tries=tries), posted, AT.timestamp() + age_s, jitter)
    assert (found.delivery is Delivery.DELIVERED) == (200 <= status < 300)
    passing = status == 0 or status >= 500 or status in (408, 425, 429)
    if found.delivery is Delivery.PENDING:
        assert passing
        assert 0 < found.again_s <= AGAIN_S_MAX
        assert tries < TRIES_MAX
        assert age_s + found.again_s <= GIVE_UP_S + 1e-3
        assert found.again_s >= min(retry_after_s, AGAIN_S_MAX)
    if passing and tries < TRIES_MAX and age_s < GIVE_UP_S - AGAIN_S_MAX - 1:
        assert found.delivery is Delivery.PENDING
    if found.delivery is Delivery.FAILED:
        assert found.reason
