"""The price table: integers, the dearest where several may apply, nothing where tokens are not all that is billed."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelPrice,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from shipworthy.adapters.prices.table import _in_force, _units, price_of
from shipworthy.cli.init_search import REMOTE
from shipworthy.model.money import Component, Usage

TODAY = date(2026, 11, 21)


def test_a_known_model_has_the_tables_price() -> None:
    price = price_of("openai", "gpt-4.1-mini")
    assert price is not None
    assert price.unit_pico[Component.INPUT] == 400_000
    assert price.unit_pico[Component.OUTPUT] == 1_600_000
    assert price.unit_pico[Component.CACHE_READ] == 100_000
    assert price.source.startswith("genai-prices ")
    (line,) = price.lines(Usage(input=1_000), "m", 1)
    assert line.amount_nano == 400_000


@pytest.mark.parametrize(
    ("kind", "upstream", "base_url"),
    [
        ("openai", "no-such-model", ""), ("openai-compatible", "gpt-4.1-mini", ""), ("llama-cpp", "gpt-4.1-mini", ""),
        ("openai", "gpt-4.1-mini", "http://127.0.0.1:9/v1"), ("openai-compatible", "gpt-4.1-mini", "https://proxy.example/v1"),
        ("openai", "", ""), ("openai", "whisper-1", ""),
    ],
)  # fmt: skip
def test_what_is_not_known_is_unpriced(kind: str, upstream: str, base_url: str) -> None:
    """A model behind an address that the table does not know may be anyone's, at any price."""
    assert price_of(kind, upstream, base_url) is None


def test_what_init_offers_is_priced() -> None:
    for provider in REMOTE:
        for model in provider.models:
            price = price_of(provider.kind, model.upstream, provider.base_url)
            assert price is not None, provider.name
            assert {Component.INPUT, Component.OUTPUT} <= set(price.unit_pico)


def test_the_dearest_tier_counts() -> None:
    tiered = TieredPrices(Decimal("1.25"), [Tier(200_000, Decimal("2.5")), Tier(1_000_000, Decimal("2"))])
    units, several = _units([ModelPrice(input_mtok=tiered, output_mtok=Decimal(10))])
    assert units == {Component.INPUT: 2_500_000, Component.OUTPUT: 10_000_000}
    assert several


def test_the_longest_cache_and_fractions_are_rounded_up() -> None:
    price = ModelPrice(
        input_mtok=Decimal("0.0000001"),
        cache_write_mtok=Decimal(1),
        cache_write_1h_mtok=Decimal(2),
        requests_kcount=Decimal(5),
    )
    units, _ = _units([price])
    assert units == {Component.INPUT: 1, Component.CACHE_WRITE: 2_000_000, Component.REQUEST: 5_000_000_000}


def test_hours_of_the_day_and_dates() -> None:
    """Every price that may apply at some hour of the day is possible; a price that begins tomorrow is not yet."""
    old, new, later, night = (ModelPrice(input_mtok=Decimal(n)) for n in (1, 2, 3, 4))
    prices = [
        ConditionalPrice(prices=old),
        ConditionalPrice(StartDateConstraint(date(2026, 3, 1)), prices=new),
        ConditionalPrice(TimeOfDateConstraint(time(0), time(8)), prices=night),
        ConditionalPrice(StartDateConstraint(date(2027, 1, 1)), prices=later),
    ]
    assert _in_force(prices, TODAY) == ([night, new], date(2026, 3, 1))
    assert _in_force(prices, date(2025, 1, 1)) == ([night, old], None)
    assert _in_force(new, TODAY) == ([new], None)


def test_images_dearer_than_input_are_unpriced() -> None:
    assert _units([ModelPrice(input_mtok=Decimal(5), input_image_mtok=Decimal(10))])[0] == {}
    assert _units([ModelPrice(input_mtok=Decimal(5), input_image_mtok=Decimal(5))])[0] == {Component.INPUT: 5_000_000}


def test_the_whole_table_can_be_read() -> None:
    """No model of the table makes a price that is negative, or fails."""
    priced = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            units, _ = _units(_in_force(model.prices, TODAY)[0])
            assert all(isinstance(pico, int) and pico >= 0 for pico in units.values())
            priced += Component.INPUT in units
    assert priced > 1_000
