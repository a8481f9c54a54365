"""A correction: what an exchange turned out to cost more or less than its row says. The row itself is final.

What was spent is rows + corrections. A correction is as final as a row: a wrong one is corrected by another.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from shipworthy.model.money import Component

REASON_CHARS_MAX = 500
SOURCE_CHARS_MAX = 200
LINES_MAX = 64
NANO_MAX = 10**17
"""100 million dollars: more than any exchange costs, and far within 64 bits."""


class CorrectionLine(Struct, frozen=True, gc=False):
    """One component of the difference: signed quantity, signed amount. Quantity 0 = only the price or the sum was wrong.

    ``upstream`` is what the provider calls the model; "" where nobody knows which one it was.
    """

    model: str
    upstream: str
    component: Component
    quantity: int
    amount_nano: int


class Correction(Struct, frozen=True, kw_only=True):
    """One correction of one exchange. ``token``: said again with the same one, it adds nothing."""

    id: UUID
    tenant: str
    exchange_id: UUID
    arrived_unix_ns: int  # the exchange's
    at_unix_ns: int
    actor: str
    reason: str
    source: str  # what says so: "invoice 2026-10"
    provider: str  # whose bill it is; "" = not said
    nano: int  # signed, never 0
    lines: tuple[CorrectionLine, ...]
    token: str
    levels: tuple[str, ...] = ()  # KEY@PERIOD of the counters that it moved; the store says


class Verdict(StrEnum):
    """What became of a correction. All but ``applied`` changed nothing."""

    APPLIED = "applied"
    KNOWN = "known"  # its token was used before
    GONE = "gone"  # there is no such exchange
    MOVED = "moved"  # the exchange's charge is not what the caller reckoned from
    NEGATIVE = "negative"  # it would have cost less than nothing
    SHORT = "short"  # a counter holds less than is to be taken off it


class Applied(Struct, frozen=True):
    """The verdict, what the exchange comes to now, and the levels whose counters moved (or, ``short``, are too low)."""

    verdict: Verdict
    charged_nano: int
    levels: tuple[str, ...]


def token_of(*said: object) -> str:
    """The token of a correction that is the same whenever the same is said."""
    joined = "\x1f".join(map(str, said))
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()
