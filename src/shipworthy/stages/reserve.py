"""reserve: money and counts are set aside before anything is paid for.

estimate = (request bytes as token ceiling, output cap × choices) at the dearest permitted model. All levels or none. Where a
budget has no room for that, and names the models to go on with, it is asked again for those only: never beyond a cap, and
what follows may use no other model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from shipworthy.model.chat import Request
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Grant
from shipworthy.model.ledger import Estimate, Hold, level_words
from shipworthy.model.money import NANO_PER_USD
from shipworthy.model.op import Op
from shipworthy.model.policy import Level
from shipworthy.model.route import Lineup
from shipworthy.ports import Ledger
from shipworthy.stages.claims import make_claims
from shipworthy.stages.estimate import estimate
from shipworthy.stages.fit import output_cap

Drafting = Callable[[Op, Grant, Request, Mapping[str, str]], bytes]
"""The row as far as it is known, encoded: what the sweeper records if this worker dies."""


def make_reserve(ledger: Ledger, draft: Drafting) -> Callable[[Op, Grant, Request], Awaitable[Hold]]:
    """The stage, over a ledger."""
    claims_at = make_claims()

    async def reserve(op: Op, grant: Grant, request: Request) -> Hold:
        claims, cap = claims_at(grant.levels, op.arrived_unix_ns), output_cap(grant, request)
        models, uncovered = grant.permitted, dict[str, str]()
        while True:  # each round leaves models out, so it ends
            ceiling = estimate(request, models, cap)
            row = partial(draft, op, grant, request, uncovered)
            try:
                hold = await ledger.reserve(op, grant.tenant.name, claims, ceiling, row)
            except Refusal as refusal:
                level, instead = instead_of(models, grant.levels, refusal)
                if not instead:
                    raise worded(refusal, ceiling) from None
                uncovered = uncovered | {model.name: level for model in models if model not in instead}
                models = instead
            except StoreUnavailable as away:
                raise Refusal("reserve.store_unavailable", detail=str(away), retry_after_s=5) from away
            else:
                hold.estimated_nano, hold.uncovered = ceiling.amount_nano, uncovered
                return hold

    return reserve


def instead_of(models: Lineup, levels: Sequence[Level], refusal: Refusal) -> tuple[str, Lineup]:
    """The level whose budget refused ``models``, and those of them that it lets serve on: fewer, or none."""
    key = str(refusal.facts.get("level", ""))
    budget = next((level.budget for level in levels if level.key == key), None)
    if refusal.code != "reserve.budget_exhausted" or budget is None:
        return key, Lineup()
    instead = Lineup(model for model in models if model.name in budget.on_exhausted)
    return key, instead if len(instead) < len(models) else Lineup()


def worded(refusal: Refusal, ceiling: Estimate) -> Refusal:
    """``refusal`` with its level as a person says it, and what was asked for in its detail."""
    asked = f"asked: up to ${ceiling.amount_nano / NANO_PER_USD:.9f} and {ceiling.tokens} tokens"
    if "level" in refusal.facts:
        refusal.facts["level"] = level_words(str(refusal.facts["level"]))
    refusal.detail = "; ".join(filter(None, (refusal.detail, asked)))
    return refusal
