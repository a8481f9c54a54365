"""Delivery of alerts to a webhook: at least once, with one delivery id and the same words at every try, for a day at most.

Tried again: no connection, no answer in time, 408, 425, 429 and 5xx. Anything else that is not 2xx is final: the receiver
has read the alert and does not want it, and saying it again would not change that.
"""

from __future__ import annotations

import random

import msgspec
from msgspec import Struct

from shipworthy.control.wording import usd
from shipworthy.model.alert import Alert, Delivery, Posted
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.observation import AlertPosted, StoreDegraded
from shipworthy.model.op import Op
from shipworthy.model.policy import Snapshot
from shipworthy.ports import AlertPoster, Alerts

DELIVERIES_MAX = 8
"""Deliveries in flight at once, a control plane."""
AGAIN_S_MIN = 2.0
AGAIN_S_MAX = 3_600.0
TRIES_MAX = 64
GIVE_UP_S = 86_400.0
TRIED_AGAIN = frozenset({408, 425, 429})
TYPE = "budget.alert"


class AlertBody(Struct, frozen=True, kw_only=True):
    """What is posted: a contract. Fields may be added, none is taken away; times are ISO 8601 in UTC."""

    type: str
    id: str  # also x-shipworthy-delivery
    deployment: str
    environment: str
    tenant: str
    level: str
    threshold: str
    period: str
    period_start: str
    period_end: str
    cap_usd: str
    charged_usd: str
    cap_nano: int
    charged_nano: int
    raised_at: str
    exhausted_at: str | None


class Verdict(Struct, frozen=True):
    """What follows from a try; ``again_s`` counts only while pending."""

    delivery: Delivery
    again_s: float = 0.0
    reason: str = ""


def body_of(alert: Alert, snapshot: Snapshot) -> bytes:
    """The alert as JSON."""
    return msgspec.json.encode(
        AlertBody(
            type=TYPE,
            id=str(alert.id),
            deployment=snapshot.name,
            environment=snapshot.environment,
            tenant=alert.tenant,
            level=alert.key,
            threshold=alert.threshold,
            period=alert.period,
            period_start=alert.period_start.isoformat(),
            period_end=alert.period_end.isoformat(),
            cap_usd=usd(alert.cap_nano),
            charged_usd=usd(alert.charged_nano),
            cap_nano=alert.cap_nano,
            charged_nano=alert.charged_nano,
            raised_at=alert.raised_at.isoformat(),
            exhausted_at=alert.exhausted_at.isoformat() if alert.exhausted_at else None,
        )
    )


async def deliver(op: Op, alerts: Alerts, poster: AlertPoster, alert: Alert, snapshot: Snapshot) -> Delivery:
    """One try of a delivery that was claimed. What cannot be marked is posted again once the claim has run out."""
    posted = await poster.post(alert.id, body_of(alert, snapshot))
    found = verdict(alert, posted, op.clock.unix_ns() / 1e9, random.uniform(0.5, 1.0))  # noqa: S311 - not in step
    op.observe(
        AlertPosted(
            alert_id=str(alert.id),
            tenant=alert.tenant,
            delivery=found.delivery.value,
            tries=alert.tries,
            status=posted.status,
            reason=found.reason,
            again_s=round(found.again_s, 3),
        )
    )
    try:
        await alerts.mark(alert, found.delivery, posted.status, found.reason, found.again_s)
    except StoreUnavailable as away:
        op.observe(StoreDegraded("alert delivery", str(away), 1))
    return found.delivery


def verdict(alert: Alert, posted: Posted, now_unix_s: float, jitter: float) -> Verdict:
    """Delivered, to be tried again in so many seconds, or failed for good. ``jitter`` 0.5 to 1 scales the wait."""
    status = posted.status
    if 200 <= status < 300:
        return Verdict(Delivery.DELIVERED)
    reason = posted.reason or f"the receiver answered {status}"
    if status and status < 500 and status not in TRIED_AGAIN:
        return Verdict(Delivery.FAILED, reason=reason)
    again_s = min(AGAIN_S_MIN * 2.0 ** (alert.tries - 1), AGAIN_S_MAX) * jitter
    again_s = max(again_s, min(posted.retry_after_s, AGAIN_S_MAX))
    if alert.tries >= TRIES_MAX:
        return Verdict(Delivery.FAILED, reason=f"given up after {alert.tries} tries: {reason}")
    if now_unix_s + again_s > alert.raised_at.timestamp() + GIVE_UP_S:
        return Verdict(Delivery.FAILED, reason=f"given up after {GIVE_UP_S / 3600:g} hours: {reason}")
    return Verdict(Delivery.PENDING, again_s, reason)
