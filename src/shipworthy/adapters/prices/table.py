"""genai-prices → our own integers. Where a model has several prices at once, the dearest counts.

Why the dearest: a hold must cover whatever the provider may bill. Tiers by prompt size, hours of the day and the longest
cache are therefore all taken at their highest, and the price's source says so; an exact price belongs into the manifest.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from shipworthy.adapters.prices.library import snapshot
from shipworthy.model.money import Component, Price

if TYPE_CHECKING:
    from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice

PICO_PER_USD_PER_MTOK = Decimal(1_000_000)
PICO_PER_USD_PER_KCOUNT = Decimal(1_000_000_000)

_TOKEN_KEYS = {
    "input_mtok": Component.INPUT,
    "output_mtok": Component.OUTPUT,
    "cache_read_mtok": Component.CACHE_READ,
    "cache_write_mtok": Component.CACHE_WRITE,
    "cache_write_1h_mtok": Component.CACHE_WRITE,
    "output_reasoning_mtok": Component.REASONING,
    "input_audio_mtok": Component.INPUT_AUDIO,
    "output_audio_mtok": Component.OUTPUT_AUDIO,
}
_COUNTED_AS_INPUT = ("input_image_mtok", "input_video_mtok")
"""Providers report these inside input tokens; where they cost more, no price of ours would be right."""


def price_of(provider_kind: str, upstream: str, base_url: str = "", today: date | None = None) -> Price | None:
    """What ``upstream`` costs at a provider of this kind and URL, as of ``today``; None = unpriced."""
    found = _find(provider_kind, upstream, base_url)
    if found is None:
        return None
    provider, model = found
    prices, effective = _in_force(model.prices, today or datetime.now(UTC).date())
    units, tiered = _units(prices)
    if Component.INPUT not in units:
        return None
    several = ", dearest of several" if tiered or len(prices) > 1 else ""
    version = importlib.metadata.version("genai-prices")
    return Price(units, f"genai-prices {version} {provider}/{model.id}{several}", effective)


def _find(provider_kind: str, upstream: str, base_url: str) -> tuple[str, ModelInfo] | None:
    """The table's entry. A URL that the table does not know may be anyone's, at any price."""
    if base_url:
        provider_id, url = None, base_url
    elif provider_kind == "openai":
        provider_id, url = "openai", None
    else:
        return None
    try:
        provider, model = snapshot().find_provider_model(upstream, None, provider_id, url)
    except LookupError:
        return None
    return provider.id, model


def _in_force(prices: ModelPrice | list[ConditionalPrice], today: date) -> tuple[list[ModelPrice], date | None]:
    """Every price that may apply at some hour of ``today``, and since when."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    if not isinstance(prices, list):
        return [prices], None
    possible: list[ModelPrice] = []
    for conditional in reversed(prices):  # the last that is active counts
        constraint = conditional.constraint
        if isinstance(constraint, StartDateConstraint):
            if constraint.start_date <= today:
                return [*possible, conditional.prices], constraint.start_date
        elif isinstance(constraint, TimeOfDateConstraint):
            possible.append(conditional.prices)
        else:
            return [*possible, conditional.prices], None
    return possible or [conditional.prices for conditional in prices[:1]], None


def _units(prices: Iterable[ModelPrice]) -> tuple[dict[Component, int], bool]:
    """The highest unit price of each component; True when one had tiers. Empty when tokens are not all that is billed."""
    units: dict[Component, int] = {}
    tiered = False
    for price in prices:
        stated = {key: value for key, value in vars(price).items() if value is not None}
        for key, value in stated.items():
            dearest, several = _dearest(value)
            tiered = tiered or several
            if key in _TOKEN_KEYS:
                _raise(units, _TOKEN_KEYS[key], dearest * PICO_PER_USD_PER_MTOK)
            elif key == "requests_kcount":
                _raise(units, Component.REQUEST, dearest * PICO_PER_USD_PER_KCOUNT)
            elif key in _COUNTED_AS_INPUT and dearest > _dearest(stated.get("input_mtok", Decimal(0)))[0]:
                return {}, tiered
    return units, tiered


def _dearest(value: object) -> tuple[Decimal, bool]:
    if isinstance(value, Decimal):
        return value, False
    from genai_prices.types import TieredPrices

    assert isinstance(value, TieredPrices), f"a price of a kind that is not known: {type(value).__name__}"
    return max(value.base, *(tier.price for tier in value.tiers)), True


def _raise(units: dict[Component, int], component: Component, pico: Decimal) -> None:
    """Rounded up: what the table says finer than a pico-USD is never lost to us."""
    units[component] = max(units.get(component, 0), int(pico.to_integral_value(ROUND_CEILING)))
