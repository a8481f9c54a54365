"""reserve: money and counts are set aside before anything is paid for.

estimate = (request bytes as token ceiling, output cap × choices) at the dearest permitted model; claims = every level that
counts for the request, with its caps in the running period, in lock order. All levels or none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from shipworthy.model.chat import Request
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Grant
from shipworthy.model.ledger import Claim, Hold, level_words
from shipworthy.model.money import NANO_PER_USD, period_bounds
from shipworthy.model.op import Op
from shipworthy.model.policy import Budget, Level, Limits
from shipworthy.ports import Ledger
from shipworthy.stages.estimate import estimate
from shipworthy.stages.fit import output_cap

NO_BUDGET = -1
_NO_LIMITS = Limits()

Draft = Callable[[Op, Grant, Request], bytes]
"""The row as far as it is known, encoded: what the sweeper records if this worker dies."""


def make_reserve(ledger: Ledger, draft: Draft) -> Callable[[Op, Grant, Request], Awaitable[Hold]]:
    """The stage, over a ledger."""

    async def reserve(op: Op, grant: Grant, request: Request) -> Hold:
        ceiling = estimate(request, grant.permitted, output_cap(grant, request))
        at = datetime.fromtimestamp(op.arrived_unix_ns / 1e9, UTC)
        claims = [claim(level, at) for level in grant.levels]
        try:
            return await ledger.reserve(op, grant.tenant.name, claims, ceiling, draft(op, grant, request))
        except Refusal as refusal:
            asked = f"asked: up to ${ceiling.amount_nano / NANO_PER_USD:.9f} and {ceiling.tokens} tokens"
            if "level" in refusal.facts:
                refusal.facts["level"] = level_words(str(refusal.facts["level"]))
            refusal.detail = "; ".join(filter(None, (refusal.detail, asked)))
            raise
        except StoreUnavailable as away:
            raise Refusal("reserve.store_unavailable", detail=str(away), retry_after_s=5) from away

    return reserve


def claim(level: Level, at: datetime) -> Claim:
    """``level`` with its caps in the period that holds ``at``."""
    limits = level.limits or _NO_LIMITS
    cap, period, start, end = _period(level.budget, at)
    return Claim(
        key=level.key,
        cap_nano=cap,
        period=period,
        period_start=start,
        period_end=end,
        requests_per_min=limits.requests_per_min,
        tokens_per_min=limits.tokens_per_min,
        concurrent=limits.concurrent,
    )


def _period(budget: Budget | None, at: datetime) -> tuple[int, str, datetime | None, datetime | None]:
    if budget is None:
        return NO_BUDGET, "", None, None
    start, end = period_bounds(budget.per, budget.zone, at)
    return budget.cap_nano, budget.per.value, start, end
