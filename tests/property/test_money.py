"""Money is integers: lines add up, nothing is priced twice, periods follow the wall clock of their zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.model.money import Component, Period, Price, Usage, period_bounds, round_to_nano

counts = st.integers(0, 10**9)
prices = st.integers(0, 10**9)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu"]
)


@given(counts, counts, counts, counts, prices, prices)
def test_every_token_is_priced_once(plain: int, cached: int, out: int, reasoning: int, into: int, outof: int) -> None:
    usage = Usage(input=plain + cached, cache_read=cached, output=out + reasoning, reasoning=reasoning)
    lines = Price({Component.INPUT: into, Component.OUTPUT: outof}, "test").lines(usage, "m", 0)
    assert sum(line.quantity for line in lines) == usage.input + usage.output
    exact_pico = usage.input * into + usage.output * outof
    assert abs(sum(line.amount_nano for line in lines) * 1_000 - exact_pico) <= 500 * len(lines)


@given(st.integers(0, 10**15))
def test_rounding_is_half_up(pico: int) -> None:
    assert round_to_nano(pico) == (pico + 500) // 1000


@given(st.sampled_from(Period), zones, moments)
def test_a_period_holds_its_moment_and_touches_the_next(period: Period, zone: str, at: datetime) -> None:
    start, end = period_bounds(period, ZoneInfo(zone), at)
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    assert start <= at < end
    following, _ = period_bounds(period, ZoneInfo(zone), end)
    assert following.astimezone(UTC) == end


def test_the_hour_that_a_clock_repeats_is_two_periods() -> None:
    zone = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 summer time
    starts = {period_bounds(Period.HOUR, zone, first + timedelta(hours=h))[0].astimezone(UTC) for h in (0, 1)}
    assert len(starts) == 2
