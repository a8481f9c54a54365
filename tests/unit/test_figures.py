"""Figures are read exactly, or refused: whatever a provider prints, no float and no guess is in between."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.control.figures import EXACT, count, exact, nano_of, plainly, rounded_nano
from shipworthy.control.wording import usd


@pytest.mark.parametrize(
    ("said", "mark", "figure"),
    [
        ("0", ".", "0"),
        ("12.0", ".", "12.0"),
        ("1,234", ".", "1234"),
        ("1,234,567.89", ".", "1234567.89"),
        ("1 234 567.89", ".", "1234567.89"),
        ("1\u00a0234\u202f567", ".", None),  # two kinds of blanks in one figure
        ("1\u202f234", ".", "1234"),
        ("1'234.5", ".", "1234.5"),
        ("1.234,5", ",", "1234.5"),
        ("0,0123", ",", "0.0123"),
        ("$0.002", ".", "0.002"),
        ("-$1.50", ".", "-1.50"),
        ("$-1.50", ".", "-1.50"),
        ("(1.50)", ".", "-1.50"),
        ("($1.50)", ".", "-1.50"),
        ("1.50 USD", ".", "1.50"),
        ("US$ 3", ".", "3"),
        ("\u22123", ".", "-3"),
        (".5", ".", "0.5"),
        ("1.2e-05", ".", "0.000012"),
        ("0.003835980000000000000000000000", ".", "0.00383598"),
        ("1,23", ".", None),
        ("12,34", ".", None),
        ("1,2345", ".", None),
        ("1.2.3", ".", None),
        ("", ".", None),
        ("-", ".", None),
        (".", ".", None),
        ("NaN", ".", None),
        ("Infinity", ".", None),
        ("1e400", ".", None),
        ("1e30", ".", None),
        ("1e-99", ".", None),
        ("0x10", ".", None),
        ("٣", ".", None),  # a digit, and not one of ours
        ("1" * 65, ".", None),
        ("€3", ".", None),
        ("--3", ".", None),
        ("(-3)", ".", "3"),
    ],
)
def test_what_is_a_figure(said: str, mark: str, figure: str | None) -> None:
    if figure is None:
        with pytest.raises(ValueError):
            exact(said, mark)
    else:
        assert exact(said, mark) == Decimal(figure)


def test_a_comma_that_may_be_a_mark_is_hinted_at() -> None:
    with pytest.raises(ValueError, match="--decimal comma"):
        exact("0,0123")


@given(st.integers(-(10**14), 10**14), st.integers(0, 10**9 - 1))
def test_money_survives_every_way_of_writing_it(whole: int, fraction: int) -> None:
    nano = whole * 10**9 + (fraction if whole >= 0 else -fraction)
    said = usd(nano)
    sign, digits = ("-", said[1:]) if nano < 0 else ("", said)
    grouped = f"{int(digits.partition('.')[0]):,}.{digits.partition('.')[2]}"
    swapped = grouped.translate(str.maketrans(",.", ".,"))
    ways = [said, f"{sign}${digits}", f"{sign}{grouped}", f"{said} USD", f"({digits})" if nano < 0 else f"+{digits}"]
    for way in ways:
        assert nano_of(way) == nano, way
    assert rounded_nano(exact(f"{sign}{swapped}", ",")) == nano
    assert exact(plainly(exact(said))) == exact(said)


@given(st.lists(st.decimals(-(10**9), 10**9, allow_nan=False, places=30), max_size=40))
def test_sums_are_exact(figures: list[Decimal]) -> None:
    """Integers of the last decimal say the same as the sum of decimals."""
    total = Decimal(0)
    for figure in figures:
        total = EXACT.add(total, exact(f"{figure:f}"))
    assert int(total.scaleb(30, EXACT)) == sum(int(figure.scaleb(30, EXACT)) for figure in figures)


@given(st.text(max_size=80))
def test_anything_else_is_a_figure_or_a_reason(said: str) -> None:
    for mark in (".", ","):
        with suppress(ValueError):
            assert exact(said, mark).is_finite()


@pytest.mark.parametrize("said", ["1.5", "-1", "1e-3", "x"])
def test_counts_are_whole(said: str) -> None:
    with pytest.raises(ValueError):
        count(said)
    assert count("1,000.0") == 1_000


def test_a_nano_dollar_is_the_least() -> None:
    assert nano_of("0.000000001") == 1
    with pytest.raises(ValueError, match="nine decimals"):
        nano_of("0.0000000001")
    assert [rounded_nano(Decimal(said)) for said in ("5e-10", "4e-10", "-5e-10")] == [1, 0, -1]
