"""The alerts that fired, as they are shown: what was passed, and how far its delivery is."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from shipworthy.control.access import act_of, within
from shipworthy.control.wording import usd
from shipworthy.model.alert import Alert, Delivery
from shipworthy.model.op import Op
from shipworthy.model.reading import Authority
from shipworthy.ports import AdminRecorder, AlertLog

ALERTS_SHOWN_MAX = 200


class AlertShown(Struct, frozen=True, kw_only=True):
    """A threshold that was passed. ``due_at`` null = no try is to come; ``last_status`` 0 = there was no answer."""

    id: UUID
    tenant: str
    level: str
    period: str
    period_start: datetime
    period_end: datetime
    threshold: str
    cap_usd: str
    charged_usd: str
    cap_nano: int
    charged_nano: int
    raised_at: datetime
    exhausted_at: datetime | None
    delivery: str  # none | pending | delivered | failed
    tries: int
    due_at: datetime | None
    last_status: int
    last_reason: str
    ended_at: datetime | None


class AlertsShown(Struct, frozen=True, kw_only=True):
    """Alerts, newest first; at most 200."""

    alerts: tuple[AlertShown, ...]


async def list_alerts(op: Op, log: AlertLog, acts: AdminRecorder, holder: Authority, tenant: str = "") -> AlertsShown:
    """The newest alerts of one tenant, or of all that ``holder`` covers; the read is recorded before."""
    scope = within(holder, tenant)
    await acts.act(act_of(op, holder, "alerts.read", scope, "alerts", {}))
    return AlertsShown(alerts=tuple(map(alert_shown, await log.page(scope, ALERTS_SHOWN_MAX))))


def alert_shown(alert: Alert) -> AlertShown:
    return AlertShown(
        id=alert.id,
        tenant=alert.tenant,
        level=alert.key,
        period=alert.period,
        period_start=alert.period_start,
        period_end=alert.period_end,
        threshold=alert.threshold,
        cap_usd=usd(alert.cap_nano),
        charged_usd=usd(alert.charged_nano),
        cap_nano=alert.cap_nano,
        charged_nano=alert.charged_nano,
        raised_at=alert.raised_at,
        exhausted_at=alert.exhausted_at,
        delivery=alert.delivery.value,
        tries=alert.tries,
        due_at=alert.due_at if alert.delivery is Delivery.PENDING else None,
        last_status=alert.last_status,
        last_reason=alert.last_reason,
        ended_at=alert.ended_at,
    )
