"""Budget alerts: which share of which budget was passed when, and how its webhook delivery goes."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

EACH_END_USER = "end_user="
"""How the keys of all levels of end users begin."""


class Watch(Struct, frozen=True):
    """One threshold of one budget in one period. ``key`` is a level's, or EACH_END_USER for every end user's."""

    tenant: str
    key: str
    period: str
    period_start: datetime
    period_end: datetime
    cap_nano: int
    permille: int  # of the cap

    @property
    def at_nano(self) -> int:
        """The least charge that passes the threshold: whole nano-dollars, no rounding in anybody's favour."""
        return -(-self.cap_nano * self.permille // 1000)


class Delivery(StrEnum):
    """How far the webhook is. Nothing leaves ``delivered`` and ``failed``."""

    NONE = "none"  # no webhook stood in the manifest when it was raised
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Alert(Struct, frozen=True):
    """One passed threshold: there is one for each (tenant, key, period, its start, threshold, cap), for ever.

    ``id`` is also the delivery's id, the same at every try. ``exhausted_at`` is when the cap is reached at the pace of the
    last hour; None = not in this period, or not known.
    """

    tenant: str
    id: UUID
    number: int  # in the order in which they were raised
    key: str
    period: str
    period_start: datetime
    period_end: datetime
    permille: int
    cap_nano: int
    charged_nano: int  # when it was raised
    raised_at: datetime
    exhausted_at: datetime | None
    delivery: Delivery
    tries: int
    due_at: datetime  # of the next try, while it is pending
    last_status: int  # the receiver's; 0 = it gave none
    last_reason: str
    ended_at: datetime | None

    @property
    def threshold(self) -> str:
        """The share of the cap, as the manifest may say it: 0.8."""
        return f"{self.permille // 1000}.{self.permille % 1000:03d}".rstrip("0").rstrip(".")


class Pace(Struct, frozen=True):
    """What a level spent lately."""

    charged_nano: int
    seconds: float

    def exhausted_at(self, alert: Alert) -> datetime | None:
        """When ``alert``'s cap is reached at this pace; None = not before its period ends."""
        left_nano = alert.cap_nano - alert.charged_nano
        if left_nano <= 0:
            return alert.raised_at
        if self.charged_nano <= 0 or self.seconds <= 0:
            return None
        left_s = left_nano * self.seconds / self.charged_nano
        if left_s >= (alert.period_end - alert.raised_at).total_seconds():
            return None
        return alert.raised_at + timedelta(seconds=round(left_s))


class Posted(Struct, frozen=True):
    """What became of one POST. ``status`` 0 = there was no answer. No text of the receiver's is in it."""

    status: int
    reason: str = ""
    retry_after_s: float = 0.0
