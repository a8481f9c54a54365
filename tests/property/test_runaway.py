"""When a spend rate is a runaway: never below the least, at any scale the same, and only ever stricter with more spend."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from shipworthy.control.runaway import reason
from shipworthy.model.policy import Runaway, Watched
from shipworthy.model.runaway import NOTHING, WINDOWS_MIN, Normal, judge

nanos = st.integers(0, 10**13)
normals = st.builds(Normal, st.integers(0, 3 * WINDOWS_MIN), nanos)
rules = st.builds(
    Runaway,
    multiple=st.integers(2, 10_000),
    at_least_nano_per_min=st.integers(1, 10**12),
    window_minutes=st.integers(1, 60),
    normal_days=st.integers(1, 90),
    watch=st.just((Watched.SESSION, Watched.PRINCIPAL)),
)


@given(rules, nanos, normals, normals)
def test_nobody_is_paused_at_the_least_rate_or_below(rule: Runaway, spent: int, own: Normal, everyone: Normal) -> None:
    verdict = judge(rule, spent, own, everyone)
    if spent <= rule.at_least_nano_per_min * rule.window_minutes:
        assert not verdict.runaway


@given(rules, nanos, normals, normals, st.integers(2, 1_000))
def test_the_currency_does_not_matter(rule: Runaway, spent: int, own: Normal, everyone: Normal, times: int) -> None:
    """A tenant that spends a thousand times as much, against a thousand times the normal and the least, gets the same."""

    def scaled(normal: Normal) -> Normal:
        return replace(normal, nano_per_min=normal.nano_per_min * times)

    larger = replace(rule, at_least_nano_per_min=rule.at_least_nano_per_min * times)
    again = judge(larger, spent * times, scaled(own), scaled(everyone))
    assert again.runaway == judge(rule, spent, own, everyone).runaway


@given(rules, nanos, nanos, normals, normals)
def test_more_spend_is_never_judged_more_mildly(
    rule: Runaway, one: int, other: int, own: Normal, everyone: Normal
) -> None:
    less, more = sorted((one, other))
    assert judge(rule, less, own, everyone).runaway <= judge(rule, more, own, everyone).runaway


@given(rules, nanos, normals, normals)
def test_exactly_the_multiple_is_still_normal(rule: Runaway, spent: int, own: Normal, everyone: Normal) -> None:
    """The rule by its own words, beside its implementation."""
    rate = spent / rule.window_minutes
    known = own if own.windows >= WINDOWS_MIN else everyone if everyone.windows >= WINDOWS_MIN else None
    normal = known.nano_per_min if known else rule.at_least_nano_per_min
    ceiling = max(rule.at_least_nano_per_min, rule.multiple * normal) * rule.window_minutes
    assert judge(rule, ceiling, own, everyone).runaway is False
    assert judge(rule, ceiling + 1, own, everyone).runaway is True
    assert judge(rule, spent, own, everyone).runaway is (spent > ceiling), rate


@given(rules, nanos, normals, normals, st.sampled_from(Watched))
def test_the_reason_names_every_figure(rule: Runaway, spent: int, own: Normal, everyone: Normal, kind: Watched) -> None:
    verdict = judge(rule, spent, own, everyone)
    said = reason(rule, kind, own, verdict)
    assert f"{rule.multiple} times" in said
    assert f"last {rule.window_minutes} min" in said
    whole, fraction = divmod(spent, 10**9)
    assert f"${whole}.{fraction:09d} in" in said
    assert len(said) < 1_000


def test_whose_normal_counts() -> None:
    rule = Runaway(10, 1_000, 5, 7, (Watched.SESSION,))
    own, everyone = Normal(WINDOWS_MIN, 7), Normal(WINDOWS_MIN, 9)
    assert judge(rule, 0, own, everyone).whose == "own"
    assert judge(rule, 0, replace(own, windows=WINDOWS_MIN - 1), everyone).whose == "tenant"
    assert judge(rule, 0, NOTHING, replace(everyone, windows=WINDOWS_MIN - 1)).whose == "unknown"
