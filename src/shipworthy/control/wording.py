"""Figures as people read them: exact dollars, durations, moments, lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from shipworthy.model.ledger import level_words
from shipworthy.model.money import NANO_PER_USD

PICO_PER_USD_PER_MILLION = 1_000_000


def usd(nano: int) -> str:
    """Dollars with all nine decimals: integers in, no rounding."""
    sign = "-" if nano < 0 else ""
    whole, fraction = divmod(abs(nano), NANO_PER_USD)
    return f"{sign}{whole}.{fraction:09d}"


def usd_per_million(unit_price_pico: int) -> str:
    """The price of a million units in dollars, exact, with at least two decimals."""
    whole, fraction = divmod(unit_price_pico, PICO_PER_USD_PER_MILLION)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{decimals}"


def lasting(ns: int) -> str:
    """A duration in the unit that suits it, three digits at most after rounding."""
    if ns < 1_000_000:
        return f"{ns / 1_000:.0f} µs"
    if ns < 10_000_000:
        return f"{ns / 1_000_000:.1f} ms"
    if ns < 1_000_000_000:
        return f"{ns / 1_000_000:.0f} ms"
    if ns < 60_000_000_000:
        return f"{ns / 1_000_000_000:.2f} s"
    minutes, seconds = divmod(ns // 1_000_000_000, 60)
    return f"{minutes} min {seconds} s"


def moment(unix_ns: int, zone: ZoneInfo | None = None) -> str:
    """A wall-clock time to the millisecond, with its zone."""
    at = datetime.fromtimestamp(unix_ns // 1_000_000_000, tz=zone or UTC)
    milliseconds = unix_ns // 1_000_000 % 1_000
    return f"{at:%Y-%m-%d %H:%M:%S}.{milliseconds:03d} {at:%Z}"


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(number: int, noun: str, plural: str = "") -> str:
    """1 token, 2 tokens, 1,234 tokens."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def article(noun: str) -> str:
    """The noun with its indefinite article, by its first letter."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def level_of(level: str) -> str:
    """A level as counters and rows name it, KEY@PERIOD: ``team=support@month`` → team support by month."""
    key, _, period = level.rpartition("@")
    return f"{level_words(key)} by {period}" if key else level_words(level)
