"""Periods on any wall clock, and reports whose totals are their rows."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.control.finops import CostReport, as_csv, span_of, total_of, unix_ns, zone_of
from shipworthy.control.finops import _shown as shown
from shipworthy.control.wording import lasting, listed, moment, usd, usd_per_million
from shipworthy.model.errors import Refusal
from shipworthy.model.reading import By, CostLine

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 21, 42, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until", "period", "begin", "end"),
    [
        ("", "", "", "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00"),
        ("", "", "day", "2026-11-21T00:00:00+01:00", "2026-11-22T00:00:00+01:00"),
        ("", "", "week", "2026-11-16T00:00:00+01:00", "2026-11-23T00:00:00+01:00"),
        ("", "", "year", "2026-01-01T00:00:00+01:00", "2027-01-01T00:00:00+01:00"),
        ("2026-10-25", "2026-10-26", "", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        ("2026-11-01T08:00", "", "", "2026-11-01T08:00:00+01:00", "2026-11-21T22:42:07+01:00"),
        ("2026-11-01T08:00Z", "2026-11-02", "", "2026-11-01T09:00:00+01:00", "2026-11-02T00:00:00+01:00"),
        ("36h", "", "", "2026-11-20T10:42:07+01:00", "2026-11-21T22:42:07+01:00"),
        ("2w", "1d", "", "2026-11-07T22:42:07+01:00", "2026-11-20T22:42:07+01:00"),
        ("", "2026-11-10", "", "2026-11-01T00:00:00+01:00", "2026-11-10T00:00:00+01:00"),
    ],
)
def test_spans(since: str, until: str, period: str, begin: str, end: str) -> None:
    span = span_of(since, until, period, BERLIN, NOW)
    assert (span.since.isoformat(), span.until.isoformat()) == (begin, end)


def test_a_day_on_which_the_clock_goes_back_has_25_hours() -> None:
    span = span_of("2026-10-25", "2026-10-26", "", BERLIN, NOW)
    assert span.until_unix_ns - span.since_unix_ns == 25 * 3_600 * 10**9


@pytest.mark.parametrize(
    ("since", "until", "period"),
    [
        ("2026-11-02", "2026-11-02", ""),
        ("2026-11-03", "2026-11-02", ""),
        ("", "2026-10-31", ""),
        ("nonsense", "", ""),
        ("1969-01-01", "", ""),
        ("9999-01-01", "", ""),
        ("99999w", "", ""),
        ("7d", "", "month"),
        ("", "", "fortnight"),
    ],
)
def test_spans_that_cannot_be_are_refused(since: str, until: str, period: str) -> None:
    with pytest.raises(Refusal, match="admin"):
        span_of(since, until, period, BERLIN, NOW)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "/etc/passwd", "Europe", "\0", "x" * 500])
def test_no_zone_but_a_zone(name: str) -> None:
    with pytest.raises(Refusal, match="zone"):
        zone_of(name)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)))
def test_moments_are_exact(at: datetime) -> None:
    assert datetime.fromtimestamp(unix_ns(at) // 10**9, tz=UTC) == at.replace(microsecond=0)
    assert unix_ns(at) % 10**9 == at.microsecond * 1_000


@given(st.integers(-(10**20), 10**20))
def test_dollars_are_exact(nano: int) -> None:
    text = usd(nano)
    assert int(text.replace(".", "")) == nano
    assert len(text.partition(".")[2]) == 9


def test_prices_durations_lists_and_moments() -> None:
    assert [usd_per_million(pico) for pico in (400_000, 75_000, 1, 0)] == ["0.40", "0.075", "0.000001", "0.00"]
    said = [lasting(ns) for ns in (0, 999_000, 9_940_000, 250_000_000, 1_850_000_000, 61_000_000_000)]
    assert said == ["0 µs", "999 µs", "9.9 ms", "250 ms", "1.85 s", "1 min 1 s"]
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert moment(1_795_297_327_123_456_789, BERLIN) == "2026-11-21 22:42:07.123 CET"


names = st.text(max_size=12)
lines = st.lists(
    st.builds(
        CostLine, tenant=names, name=names, charged_nano=st.integers(0, 2**60), overrun_nano=st.integers(0, 2**60)
    ),
    max_size=8,
)


@given(lines)
def test_a_spreadsheet_gets_no_formula_and_the_exact_sum(found: list[CostLine]) -> None:
    report = CostReport(
        by=By.TEAM,
        zone="UTC",
        since="2026-11-01T00:00:00+00:00",
        until="2026-12-01T00:00:00+00:00",
        lines=tuple(map(shown, found)),
        total=shown(total_of(found, "")),
    )
    rows = list(csv.DictReader(io.StringIO(as_csv(report), newline="")))
    assert sum(int(row["charged_nano"]) for row in rows) == report.total.charged_nano
    assert sum(int(row["charged_usd"].replace(".", "")) for row in rows) == report.total.charged_nano
    for row, line in zip(rows, found, strict=True):
        assert row["name"] in (line.name, f"'{line.name}")
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
