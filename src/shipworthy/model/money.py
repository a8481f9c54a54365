"""Prices, periods and charge lines: integers only.

A price is pico-USD per unit; a charge line is rounded once, half up, to nano-USD. 1 USD = 10⁹ nano = 10¹² pico.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from zoneinfo import ZoneInfo

from msgspec import Struct

NANO_PER_USD = 1_000_000_000
PICO_PER_NANO = 1_000
PICO_PER_USD = 1_000_000_000_000


class Component(StrEnum):
    """What a provider counts. Names follow OpenTelemetry's ``gen_ai.usage.*``."""

    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    CACHE_READ = "cache_read_input_tokens"
    CACHE_WRITE = "cache_write_input_tokens"
    REASONING = "reasoning_output_tokens"
    INPUT_AUDIO = "input_audio_tokens"
    OUTPUT_AUDIO = "output_audio_tokens"
    IMAGE = "input_image"
    REQUEST = "request"

    @property
    def is_input(self) -> bool:
        return self in _INPUT

    @property
    def is_output(self) -> bool:
        return self in _OUTPUT


_INPUT = frozenset({Component.INPUT, Component.CACHE_READ, Component.CACHE_WRITE, Component.INPUT_AUDIO})
_OUTPUT = frozenset({Component.OUTPUT, Component.REASONING, Component.OUTPUT_AUDIO})


class Basis(StrEnum):
    """Where a quantity comes from, best first."""

    REPORTED = "reported"  # the provider's usage
    COUNTED = "counted"  # we counted what passed
    CEILING = "ceiling"  # the hold: nothing better is known
    FREE = "free"  # nothing is charged, and that is written down


class Usage(Struct, frozen=True, gc=False):
    """How much one attempt used. ``input`` counts every input token, cached ones included; ``output`` reasoning included."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0
    images: int = 0
    basis: Basis = Basis.REPORTED

    def at_least(self, later: Usage) -> Usage:
        """The greatest of each figure: providers report cumulatively, and some report input and output apart."""
        return Usage(
            input=max(self.input, later.input),
            output=max(self.output, later.output),
            cache_read=max(self.cache_read, later.cache_read),
            cache_write=max(self.cache_write, later.cache_write),
            reasoning=max(self.reasoning, later.reasoning),
            input_audio=max(self.input_audio, later.input_audio),
            output_audio=max(self.output_audio, later.output_audio),
            images=max(self.images, later.images),
            basis=later.basis,
        )

    def quantities(self) -> tuple[tuple[Component, int], ...]:
        """Disjoint quantities, so that no token is priced twice."""
        rare = self.cache_read or self.cache_write or self.reasoning or self.input_audio or self.output_audio
        if not (rare or self.images):
            return (Component.INPUT, self.input), (Component.OUTPUT, self.output)
        plain_in = max(0, self.input - self.cache_read - self.cache_write - self.input_audio)
        plain_out = max(0, self.output - self.reasoning - self.output_audio)
        return (
            (Component.INPUT, plain_in),
            (Component.CACHE_READ, self.cache_read),
            (Component.CACHE_WRITE, self.cache_write),
            (Component.INPUT_AUDIO, self.input_audio),
            (Component.OUTPUT, plain_out),
            (Component.REASONING, self.reasoning),
            (Component.OUTPUT_AUDIO, self.output_audio),
            (Component.IMAGE, self.images),
        )


class Price(Struct, frozen=True, dict=True):
    """Pico-USD per unit of each component, dated. A component that is absent is unpriced, not free.

    What is derived from it is worked out once: every request asks for it.
    """

    unit_pico: dict[Component, int]
    source: str  # "manifest", "genai-prices 0.2.3 (date)"
    effective: date | None = None

    def of(self, component: Component) -> int | None:
        """The named price, else the dearest named one of the same side: never cheaper by omission.

        Images without a price of their own are billed by providers as input tokens: then None, and no line.
        """
        known = self.unit_pico.get(component)
        if known is not None or component is Component.IMAGE:
            return known
        side = _INPUT if component.is_input else _OUTPUT
        return max((price for named, price in self.unit_pico.items() if named in side), default=None)

    @cached_property
    def dearest_input(self) -> int:
        """Of what is named on that side; 0 when nothing is."""
        return max((price for named, price in self.unit_pico.items() if named in _INPUT), default=0)

    @cached_property
    def dearest_output(self) -> int:
        """Of what is named on that side; 0 when nothing is."""
        return max((price for named, price in self.unit_pico.items() if named in _OUTPUT), default=0)

    @cached_property
    def per_image(self) -> int:
        return self.unit_pico.get(Component.IMAGE, 0)

    @cached_property
    def per_request(self) -> int:
        return self.unit_pico.get(Component.REQUEST, 0)

    def lines(self, usage: Usage, model: str, attempt: int) -> tuple[ChargeLine, ...]:
        """Charge lines for ``usage``: one a component that occurred. Raises KeyError where a whole side is unpriced."""
        lines = []
        for component, quantity in usage.quantities():
            if quantity:
                unit_pico = self.of(component)
                if unit_pico is None:
                    if component is Component.IMAGE:
                        continue
                    raise KeyError(component)
                amount = round_to_nano(quantity * unit_pico)
                lines.append(ChargeLine(attempt, model, component, quantity, unit_pico, amount, usage.basis))
        if self.per_request:
            amount = round_to_nano(self.per_request)
            lines.append(ChargeLine(attempt, model, Component.REQUEST, 1, self.per_request, amount, usage.basis))
        return tuple(lines)


class ChargeLine(Struct, frozen=True, gc=False):
    """component × quantity × unit price = amount, and how the quantity is known."""

    attempt: int
    model: str
    component: Component
    quantity: int
    unit_price_pico: int
    amount_nano: int
    basis: Basis


def round_to_nano(pico: int) -> int:
    """Half up, once per charge line."""
    return (pico + PICO_PER_NANO // 2) // PICO_PER_NANO


class Period(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


def period_bounds(period: Period, zone: ZoneInfo, at: datetime) -> tuple[datetime, datetime]:
    """Start and end of the period that holds ``at``, both aware, on the wall clock of ``zone`` (weeks begin on Monday)."""
    local = at.astimezone(zone)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    match period:
        case Period.HOUR:
            past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            start = at.astimezone(UTC) - past  # absolute time: an hour that the clock repeats is two periods
            end = start + timedelta(hours=1)
        case Period.DAY:
            start, end = day, day + timedelta(days=1)
        case Period.WEEK:
            start = day - timedelta(days=day.weekday())
            end = start + timedelta(days=7)
        case Period.MONTH:
            start = day.replace(day=1)
            end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        case Period.YEAR:
            start = day.replace(month=1, day=1)
            end = start.replace(year=start.year + 1)
    return start, end
