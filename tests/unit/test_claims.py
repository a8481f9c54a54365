"""Claims: a path's caps in the running period, worked out once, and never used beyond it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.model.money import Period, period_bounds
from shipworthy.model.policy import Budget, Level, Limits
from shipworthy.stages.claims import claim, make_claims

BERLIN, KATHMANDU = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)  # the day before Berlin's clock goes forward
LEVELS = (
    Level("team=t", Budget(10, Period.HOUR, KATHMANDU), Limits(requests_per_min=6)),
    Level("tenant", Budget(100, Period.DAY, BERLIN)),
    Level("use_case=u", None, Limits(tokens_per_min=60, concurrent=2)),
)


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def test_a_level_is_claimed_with_its_caps() -> None:
    team, tenant, use_case = make_claims()(LEVELS, ns(NOON))
    assert (team.key, team.cap_nano, team.period, team.requests_per_min) == ("team=t", 10, "hour", 6)
    assert (tenant.period_start, tenant.period_end) == period_bounds(Period.DAY, BERLIN, NOON)
    assert (use_case.cap_nano, use_case.period, use_case.tokens_per_min, use_case.concurrent) == (-1, "", 60, 2)


def test_they_are_the_same_object_until_the_first_period_ends() -> None:
    """Ledgers know a path by it."""
    claims = make_claims()
    first = claims(LEVELS, ns(NOON))
    end = first[0].period_end
    assert end is not None
    assert claims(LEVELS, ns(end) - 1) is first
    later = claims(LEVELS, ns(end))
    assert later is not first
    assert later[0].period_start == end
    assert claims(LEVELS, ns(end) + 1) is later


def test_a_clock_that_is_set_back_gets_the_period_that_it_says() -> None:
    claims = make_claims()
    claims(LEVELS, ns(NOON))
    before = claims(LEVELS, ns(NOON - timedelta(days=40)))
    assert before == tuple(claim(level, NOON - timedelta(days=40)) for level in LEVELS)


@given(st.lists(st.integers(0, 3 * 86_400), min_size=1, max_size=20))
def test_they_are_always_what_the_calendar_says(seconds: list[int]) -> None:
    """Whichever way the clock goes, across a change of the clock too."""
    claims = make_claims()
    for offset in seconds:
        at = NOON + timedelta(seconds=offset)
        assert claims(LEVELS, ns(at)) == tuple(claim(level, at) for level in LEVELS)


def test_what_has_no_budget_is_true_for_ever() -> None:
    claims = make_claims()
    only = (Level("tenant", None, Limits(concurrent=1)),)
    assert claims(only, 0) is claims(only, 2**62)
    assert claims((), 5) == ()


@pytest.mark.parametrize("paths_max", [1, 3])
def test_no_more_paths_are_kept_than_allowed(paths_max: int) -> None:
    """Who comes beyond takes the oldest's place, and nobody ever gets another path's claims."""
    claims = make_claims(paths_max)
    paths = [(Level(f"end_user={n}", Budget(n, Period.DAY, BERLIN)),) for n in range(10)]
    for _ in range(3):
        for n, path in enumerate(paths):
            assert [each.cap_nano for each in claims(path, ns(NOON))] == [n]
    last = paths[-paths_max:]
    kept = [claims(path, ns(NOON)) for path in last]
    assert all(claims(path, ns(NOON)) is each for path, each in zip(last, kept, strict=True))
    for n in range(100):  # levels that nobody else holds: an id that is used again is not taken for the old one
        assert claims((Level("tenant", Budget(n, Period.DAY, BERLIN)),), ns(NOON))[0].cap_nano == n
