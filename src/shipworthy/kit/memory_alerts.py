"""Budget alerts in memory, as a list that a test fills."""

from __future__ import annotations

from collections.abc import Sequence

from shipworthy.model.alert import Alert
from shipworthy.model.reading import EVERY_TENANT


class MemoryAlertLog:
    """An AlertLog."""

    def __init__(self, *alerts: Alert) -> None:
        self.alerts = list(alerts)

    async def page(self, scope: str, limit: int) -> Sequence[Alert]:
        found = [alert for alert in self.alerts if scope in (EVERY_TENANT, alert.tenant)]
        return sorted(found, key=lambda alert: alert.number, reverse=True)[:limit]
