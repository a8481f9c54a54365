"""reserve: the dearest permitted model is held; where a budget names others to go on with, those; never beyond a cap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from shipworthy.kit.builders import an_op
from shipworthy.kit.calls import a_chat
from shipworthy.kit.grants import a_budget, a_grant, a_priced_model
from shipworthy.kit.ledger import MemoryLedger
from shipworthy.model.chat import Request
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Grant
from shipworthy.model.ledger import Claim, Estimate, Hold
from shipworthy.model.op import Op
from shipworthy.model.policy import Budget, Level, Limits
from shipworthy.model.route import Lineup
from shipworthy.ports import Draft
from shipworthy.stages.estimate import estimate
from shipworthy.stages.reserve import make_reserve

DEAR, CHEAP, FREE = a_priced_model("dear", 1_000_000), a_priced_model("cheap", 1_000), a_priced_model("free", 0)
MODELS = (DEAR, CHEAP, FREE)
REQUEST = a_chat()
CEILINGS = {model.name: estimate(REQUEST, Lineup([model]), 1_000).amount_nano for model in MODELS}


class Asked(MemoryLedger):
    """A ledger that notes for what amounts it was asked; nobody is waited for."""

    def __init__(self) -> None:
        super().__init__(holds_wait_s=0)
        self.amounts: list[int] = []
        self.claims: list[object] = []
        self.drafts: list[bytes] = []

    async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        self.amounts.append(estimate.amount_nano)
        self.claims.append(claims)
        hold = await super().reserve(op, tenant, claims, estimate, draft)
        self.drafts.append(draft())
        return hold


def a_draft(op: Op, grant: Grant, request: Request, uncovered: Mapping[str, str]) -> bytes:
    return repr(dict(uncovered)).encode()


Reserve = Callable[[Op, Grant, Request], Awaitable[Hold]]


def run(reserve: Reserve, grant: Grant) -> Hold:
    async def scenario() -> Hold:
        return await reserve(an_op(), grant, REQUEST)

    return asyncio.run(scenario())


def reserved(ledger: MemoryLedger, *levels: Level) -> Hold:
    return run(make_reserve(ledger, a_draft), a_grant(MODELS, levels))


def level(budget: Budget, key: str = "use_case=support") -> Level:
    return Level(key, budget)


def test_the_dearest_permitted_model_is_held() -> None:
    hold = reserved(Asked(), level(a_budget(10**12, "free")))
    assert (hold.estimate.amount_nano, hold.estimated_nano) == (CEILINGS["dear"], CEILINGS["dear"])
    assert hold.uncovered == {}


def test_a_budget_without_room_goes_on_with_the_models_that_it_names() -> None:
    """Held at those only; the others are not covered, and the draft of the row says so too."""
    ledger = Asked()
    hold = reserved(ledger, level(a_budget(CEILINGS["cheap"], "cheap", "free")))
    assert ledger.amounts == [CEILINGS["dear"], CEILINGS["cheap"]]
    assert hold.estimated_nano == hold.estimate.amount_nano == CEILINGS["cheap"]
    assert hold.uncovered == {"dear": "use_case=support"}
    assert ledger.drafts == [b"{'dear': 'use_case=support'}"]


def test_what_is_free_serves_on_when_everything_is_spent() -> None:
    hold = reserved(Asked(), level(a_budget(0, "free")))
    assert hold.estimate.amount_nano == 0
    assert hold.uncovered == {"dear": "use_case=support", "cheap": "use_case=support"}


def test_each_level_leaves_its_own_out() -> None:
    hold = reserved(
        Asked(), level(a_budget(0, "free"), "tenant"), level(a_budget(CEILINGS["cheap"], "cheap", "free"), "team=t")
    )
    assert hold.uncovered == {"dear": "team=t", "cheap": "tenant"}


def test_only_the_level_that_refuses_decides() -> None:
    """A use case that names models does not speak for a tenant that has nothing left."""
    with pytest.raises(Refusal, match="budget_exhausted") as refused:
        reserved(Asked(), level(a_budget(0), "tenant"), level(a_budget(10**12, "free")))
    assert refused.value.facts["level"] == "the tenant"


@pytest.mark.parametrize("names", [("cheap",), ("elsewhere",), ("dear", "cheap", "free")], ids=" ".join)
def test_what_does_not_fit_either_is_refused(names: tuple[str, ...]) -> None:
    """Also where none of the models is permitted here, or nothing would be left out."""
    ledger = Asked()
    with pytest.raises(Refusal, match="budget_exhausted") as refused:
        reserved(ledger, level(a_budget(CEILINGS["cheap"] - 1, *names)))
    assert refused.value.facts["level"] == "use case support"
    assert f"asked: up to ${ledger.amounts[-1] / 1e9:.9f}" in refused.value.detail
    assert len(ledger.amounts) == (2 if names == ("cheap",) else 1)


def test_a_limit_is_no_reason_to_take_a_cheaper_model() -> None:
    ledger = Asked()
    both = Level("use_case=support", a_budget(10**12, "free"), Limits(concurrent=1))
    reserved(ledger, both)
    with pytest.raises(Refusal, match="concurrent_limit"):
        reserved(ledger, both)
    assert len(ledger.amounts) == 2


def test_other_levels_are_still_enforced() -> None:
    limited = Level("tenant", None, Limits(tokens_per_min=1))
    with pytest.raises(Refusal, match="tokens_limit"):
        reserved(Asked(), limited, level(a_budget(0, "free")))


def test_a_path_is_claimed_with_the_same_object() -> None:
    ledger = Asked()
    reserve = make_reserve(ledger, a_draft)
    grant = a_grant(MODELS, [level(a_budget(10**12))])
    for _ in range(2):
        run(reserve, grant)
    assert ledger.claims[0] is ledger.claims[1]


def test_a_store_that_is_away_is_said_as_a_refusal() -> None:
    ledger = Asked()
    ledger.away = "down"
    with pytest.raises(Refusal, match="store_unavailable") as refused:
        reserved(ledger, level(a_budget(0, "free")))
    assert isinstance(refused.value.__cause__, StoreUnavailable)


def test_the_draft_is_not_made_before_it_is_asked_for() -> None:
    """A lease that is behind with its intents may never need it."""

    class Never(MemoryLedger):
        async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
            return await super().reserve(op, tenant, claims, estimate, lambda: b"")

    def broken(op: Op, grant: Grant, request: Request, uncovered: Mapping[str, str]) -> bytes:
        raise AssertionError("drafted")

    run(make_reserve(Never(), broken), a_grant(MODELS))


def test_a_direct_hold_keeps_what_it_has_until_it_is_settled() -> None:
    """Giving it back would cost a round trip; a leased hold gives back at once (tests/unit/test_lease_purse.py)."""
    ledger = Asked()
    grant = a_grant(MODELS, [level(a_budget(10**12))])
    hold = run(make_reserve(ledger, a_draft), grant)
    (claim,) = hold.claims
    assert isinstance(claim, Claim)
    ledger.trim(an_op(), hold, 10)
    assert ledger.figures("northwind", claim).held_nano == hold.estimate.amount_nano == CEILINGS["dear"]
    assert hold.estimated_nano == CEILINGS["dear"]
