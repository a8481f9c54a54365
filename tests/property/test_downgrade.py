"""Whatever budgets name to go on with: no cap is passed, the hold covers what may be tried, and a refusal is a real one."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.kit.builders import an_op
from shipworthy.kit.calls import a_chat
from shipworthy.kit.grants import a_budget, a_grant, a_priced_model
from shipworthy.kit.ledger import MemoryLedger
from shipworthy.model.errors import Refusal
from shipworthy.model.fleet import Fleet
from shipworthy.model.identity import Grant
from shipworthy.model.ledger import Hold
from shipworthy.model.policy import Level
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Lineup, Strategy
from shipworthy.stages.claims import make_claims
from shipworthy.stages.estimate import dearest_cost, estimate
from shipworthy.stages.reserve import make_reserve
from shipworthy.stages.route import make_route

REQUEST = a_chat()
OUTPUT = 1_000
FITTED = Fitted(OUTPUT, estimate(REQUEST, Lineup([a_priced_model("any", 1)]), OUTPUT).input_tokens, {})
MODELS = {
    name: a_priced_model(name, price, output)
    for name, price, output in (
        ("dear", 1_000_000, 4_000),
        ("short", 900_000, 50),
        ("cheap", 1_000, 4_000),
        ("free", 0, 9),
    )
}
COSTS = {name: estimate(REQUEST, Lineup([model]), OUTPUT).amount_nano for name, model in MODELS.items()}
KEYS = ("team=t", "tenant", "use_case=support")

names = st.lists(st.sampled_from([*MODELS, "elsewhere"]), max_size=3, unique=True)
# Caps about the costs and their sums: edges are met often.
caps = st.builds(
    lambda cost, times, more: max(0, cost * times + more),
    st.sampled_from([*COSTS.values()]),
    st.integers(0, 3),
    st.integers(-1, 1),
)
budgets = st.builds(lambda cap, named: a_budget(cap, *named), caps, names)


def reserved(ledger: MemoryLedger, grant: Grant) -> Hold | Refusal:
    async def scenario() -> Hold:
        return await make_reserve(ledger, lambda *_: b"")(an_op(), grant, REQUEST)

    try:
        return asyncio.run(scenario())
    except Refusal as refusal:
        return refusal


@given(
    permitted=st.lists(st.sampled_from([*MODELS]), min_size=1, max_size=4, unique=True),
    given_budgets=st.tuples(budgets, st.none() | budgets, st.none() | budgets),
    requests=st.integers(1, 4),
    strategy=st.sampled_from(Strategy),
)
def test_going_on_never_passes_a_cap(permitted, given_budgets, requests, strategy) -> None:  # type: ignore[no-untyped-def]
    """Promise 2, with budgets that name models on any level, requests that stay in flight, and every strategy."""
    levels = [Level(key, budget) for key, budget in zip(KEYS, given_budgets, strict=True) if budget is not None]
    grant = a_grant([MODELS[name] for name in permitted], levels, strategy)
    named = {level.key: set(level.budget.on_exhausted) for level in levels if level.budget}
    ledger, claims_at = MemoryLedger(holds_wait_s=0), make_claims()
    for _ in range(requests):
        claims = claims_at(grant.levels, an_op().arrived_unix_ns)
        free = {claim.key: claim.cap_nano - ledger.figures("northwind", claim).taken_nano for claim in claims}
        hold = reserved(ledger, grant)
        if isinstance(hold, Refusal):
            assert_had_to_be(hold, permitted, named, free)
            continue
        covered = [name for name in permitted if name not in hold.uncovered]
        assert covered, "money was held for nothing"
        assert hold.estimated_nano == max(COSTS[name] for name in covered)
        assert all(hold.estimated_nano <= left for left in free.values()), "admitted beyond a cap"
        for name, level in hold.uncovered.items():
            assert name not in named[level] != set(), "left out by a level that does not leave it out"
        route = make_route(Fleet(0, lambda *_: None), ledger)(an_op(), grant, hold, REQUEST, FITTED)
        assert {model.name for model in route.models} == set(covered)
        assert sorted(candidate.model for candidate in route.candidates) == sorted(permitted)
        for model in route.models:
            most = dearest_cost(REQUEST, FITTED.input_tokens, OUTPUT, (model,))
            assert most <= hold.estimate.amount_nano <= hold.estimated_nano, "trimmed below what may be tried"
        taken = {claim.key: ledger.figures("northwind", claim).taken_nano for claim in claims}
        caps_nano = {claim.key: claim.cap_nano for claim in claims}
        assert all(taken[key] == caps_nano[key] - free[key] + hold.estimate.amount_nano for key in taken)


def assert_had_to_be(refusal: Refusal, permitted: list[str], named: dict[str, set[str]], free: dict[str, int]) -> None:
    """What the levels without room name, applied one after another, left nothing that fits everywhere."""
    assert refusal.code == "reserve.budget_exhausted"
    left = list(permitted)
    while short := [key for key in sorted(free) if max(COSTS[name] for name in left) > free[key]]:
        kept = [name for name in left if name in named[short[0]]]
        if not kept or kept == left:
            return
        left = kept
    raise AssertionError(f"refused, though {left} fit everywhere")
