"""Two checks of the books: counters against the rows that they sum up, the record against a provider's own count."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum

from msgspec import Struct


class What(StrEnum):
    """What a counter says of a level, and what has to be behind it."""

    CHARGED = "charged"  # nano-dollars: the rows of its period, and their corrections
    HELD = "held"  # nano-dollars: holds
    LEASED = "leased"  # nano-dollars: leases of living workers
    SUSPENDED = "suspended"  # nano-dollars: leases of workers believed gone
    IN_FLIGHT = "in flight"  # holds
    LEASED_REQUESTS = "leased requests"
    LEASED_TOKENS = "leased tokens"
    LEASED_PLACES = "leased places"

    @property
    def is_money(self) -> bool:
        return self in (What.CHARGED, What.HELD, What.LEASED, What.SUSPENDED)


class Excuse(StrEnum):
    """Why a difference proves nothing."""

    NONE = ""
    BEFORE_LEVELS = "recorded before levels were kept"
    RETENTION = "rows of its beginning are past retention"


class Difference(Struct, frozen=True, kw_only=True):
    """One figure that is not the sum of what is behind it. ``counter`` None: there is no counter at all."""

    tenant: str
    level: str  # KEY@PERIOD; of limits only KEY
    what: What
    begins: datetime | None
    ends: datetime | None
    counter: int | None
    behind: int
    exchanges: int = 0
    excuse: Excuse = Excuse.NONE


class Balance(Struct, frozen=True, kw_only=True):
    """Counters beside rows, in one snapshot. ``differences`` are at most as many as was asked; ``more`` = not all."""

    counters: int
    paces: int
    exchanges: int  # that charged a level
    charged_nano: int  # at all levels together
    corrections: int
    holds: int
    leases: int
    unlevelled: int  # exchanges recorded before levels were kept
    unlevelled_nano: int
    differences: tuple[Difference, ...]
    more: bool


class Used(Struct, frozen=True, kw_only=True):
    """What the record says that one upstream model of a provider used on one UTC day, by when each attempt began.

    A request is an attempt that was answered or charged. ``failed_*`` is the part of it whose attempt failed, and
    ``counted`` how many requests rest on our own count or ceiling. Corrections are in ``nano``, not in the quantities,
    unless their lines say quantities.
    """

    day: date
    upstream: str
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    nano: int = 0
    rounding_pico: int = 0  # what rounding each charge line to the nano-dollar added (or, negative, took)
    failed_requests: int = 0
    failed_input_tokens: int = 0
    failed_output_tokens: int = 0
    failed_nano: int = 0
    counted: int = 0


class Presumed(Struct, frozen=True, kw_only=True):
    """Exchanges whose worker died: what they cost is presumed, and no provider is known of them."""

    day: date
    exchanges: int
    nano: int
