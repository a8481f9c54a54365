"""Budget alerts in memory, as a list that a test fills."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from msgspec.structs import replace

from shipworthy.model.alert import Alert, Delivery
from shipworthy.model.reading import EVERY_TENANT

RAISED_AT = datetime(2026, 6, 15, 12, tzinfo=UTC)


class MemoryAlertLog:
    """An AlertLog."""

    def __init__(self, *alerts: Alert) -> None:
        self.alerts = list(alerts)

    async def page(self, scope: str, limit: int) -> Sequence[Alert]:
        found = [alert for alert in self.alerts if scope in (EVERY_TENANT, alert.tenant)]
        return sorted(found, key=lambda alert: alert.number, reverse=True)[:limit]


def an_alert(number: int, **changes: object) -> Alert:
    """Four fifths of $10 a month were spent by a team; the third try to say so was just refused."""
    alert = Alert(
        tenant="northwind",
        id=UUID(int=number),
        number=number,
        key="team=support",
        period="month",
        period_start=datetime(2026, 6, 1, tzinfo=UTC),
        period_end=datetime(2026, 7, 1, tzinfo=UTC),
        permille=800,
        cap_nano=10_000_000_000,
        charged_nano=8_000_000_001,
        raised_at=RAISED_AT,
        exhausted_at=None,
        delivery=Delivery.PENDING,
        tries=3,
        due_at=RAISED_AT,
        last_status=503,
        last_reason="the receiver answered 503",
        ended_at=None,
    )
    return replace(alert, **changes)
