"""What is watched off the path of a request: budget alerts, spend rates, pauses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from shipworthy.model.alert import Alert, Delivery, Pace, Posted, Watch
from shipworthy.model.op import Op
from shipworthy.model.pause import Pause, PauseAsked, Placed
from shipworthy.model.policy import Runaway
from shipworthy.model.runaway import Normal, Spender, Suspect
from shipworthy.ports.acts import AdminAct


class EndUsers(Struct, frozen=True):
    """A page of one tenant's end users in one period: those whose level's key comes after ``after``."""

    tenant: str
    period: str
    period_start: datetime
    after: str


class Passed(Struct, frozen=True):
    """Alerts for the caller to say, and where its next page of end users begins ("" = at the first again)."""

    alerts: tuple[Alert, ...]
    after: str


class Alerts(Protocol):
    """Budget alerts and the outbox of their webhook. Any number of control planes may work on it at once."""

    async def raise_passed(self, watches: Sequence[Watch], end_users: EndUsers | None, deliver: bool) -> Passed:
        """Raises what the charges have passed, each threshold once for ever; also returns what somebody left unsaid.

        The caller has a stated time to say them; afterwards somebody else will. Raises StoreUnavailable.
        """

    async def pace(self, tenant: str, team: str, use_case: str, end_user: str) -> Pace:
        """What a level of those names ("" = any) was charged lately. Raises StoreUnavailable, also if it takes long."""

    async def said(self, alert: Alert, exhausted_at: datetime | None) -> None:
        """The alert was said: it may be delivered. Raises StoreUnavailable."""

    async def claim(self, limit: int) -> Sequence[Alert]:
        """Deliveries that are due, the caller's alone for a stated time; each counts as a try. Raises StoreUnavailable."""

    async def mark(self, alert: Alert, delivery: Delivery, status: int, reason: str, again_s: float) -> None:
        """How the claimed try ended; ``again_s`` is when the next is due, if still pending. Raises StoreUnavailable."""

    async def forget(self, before: datetime, limit: int) -> int:
        """Removes at most ``limit`` alerts of periods that ended before; returns how many. Raises StoreUnavailable."""


class AlertLog(Protocol):
    async def page(self, scope: str, limit: int) -> Sequence[Alert]:
        """The newest alerts of one tenant, or of EVERY_TENANT; whoever calls has recorded the read."""


class AlertPoster(Protocol):
    async def post(self, delivery_id: UUID, body: bytes) -> Posted:
        """Posts ``body``, signed, once, within a stated time. Never raises for what the receiver or the way to it does."""


class PauseStore(Protocol):
    """Sessions and principals that are refused until an administrator releases them; each change with its act."""

    async def pause(self, asked: PauseAsked, act: AdminAct) -> Placed:
        """``act`` is recorded only with a new pause. Every worker refuses within a second. Raises StoreUnavailable."""

    async def active(self, scope: str) -> Sequence[Pause]:
        """Those that stand, newest first; ``scope`` as for Exchanges. Raises StoreUnavailable."""

    async def release(self, tenant: str, pause_id: UUID, because: str, act: AdminAct) -> Pause | None:
        """The pause as it ended; None = it stands no more, and nothing is recorded. Raises StoreUnavailable."""


class Folded(Struct, frozen=True):
    """``ours`` False: another control plane is at it. ``behind``: there is more to fold before anyone can be judged."""

    ours: bool
    behind: bool = False


class SpendWatch(Protocol):
    """Who spends how much, from the committed record, across tenants: those that have a rule."""

    async def fold(self, rules: Mapping[str, Runaway]) -> Folded:
        """Adds a bounded stretch of the record to the sums, exactly once. Raises StoreUnavailable."""

    async def suspects(self, rules: Mapping[str, Runaway]) -> Sequence[Suspect]:
        """Who spent more than the least in the running window; a tenant's sessions before its principals, the dearest first.

        What pauses have to do with is left out: what those who are paused spent, and what was spent before a release.
        Raises StoreUnavailable.
        """

    async def normals(self, op: Op, rules: Mapping[str, Runaway], whose: Set[Spender]) -> Mapping[Spender, Normal]:
        """The normal of each, at most a minute old. Raises StoreUnavailable."""

    async def forget(self) -> None:
        """Clears away what no rule needs any more. Raises StoreUnavailable."""
