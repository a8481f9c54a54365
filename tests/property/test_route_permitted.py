"""A route never holds a denied model: boundary, rule, ability and modality decide for every request, in every strategy."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from shipworthy.kit.builders import an_op
from shipworthy.kit.calls import a_chat, a_model, a_provider
from shipworthy.kit.ledger import MemoryLedger
from shipworthy.model.chat import Dialect, Request
from shipworthy.model.errors import Refusal
from shipworthy.model.fleet import Fleet
from shipworthy.model.identity import Credentials, Principal
from shipworthy.model.ledger import Hold, Standing
from shipworthy.model.money import Period
from shipworthy.model.policy import Bodies, Budget, Mode, Role, Rule, Snapshot, Team, Tenant, TokenCaps, UseCase
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Ability, Boundary, Demand, Model, Network, Strategy, unmet
from shipworthy.ports import Arrival
from shipworthy.stages.authorize import make_authorize
from shipworthy.stages.estimate import estimate
from shipworthy.stages.route import make_route

CLASSES = ("public", "internal", "confidential", "restricted")
NAMES = ("a", "b", "c", "d")

boundaries = st.builds(
    Boundary,
    regions=st.sampled_from([(), ("eu",), ("us",), ("eu", "us")]),
    network=st.sampled_from(Network),
    trains_on_data=st.booleans(),
    retention_days=st.sampled_from([None, 0, 30]),
    agreement_id=st.sampled_from(["", "DPA"]),
    agreement_expires=st.sampled_from(["", "2020-01-01", "2099-01-01"]),
)
demands = st.builds(
    Demand,
    regions=st.sampled_from([(), ("eu",)]),
    network=st.sampled_from([(), (Network.LOCAL,), (Network.PRIVATE, Network.LOCAL)]),
    trains_on_data=st.sampled_from([None, False]),
    retention_days_max=st.sampled_from([None, 0, 30]),
    agreement=st.booleans(),
)


@st.composite
def models(draw: st.DrawFn) -> tuple[Model, ...]:
    chosen = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    made = []
    for name in chosen:
        provider = replace(a_provider("x", None), name=f"p-{name}", boundary=draw(boundaries))
        abilities = draw(st.sampled_from([{Ability.CHAT}, {Ability.EMBED}, {Ability.CHAT, Ability.EMBED}]))
        modalities = draw(st.sampled_from([{"text"}, {"text", "image"}]))
        made.append(
            replace(a_model(provider), name=name, abilities=frozenset(abilities), modalities=frozenset(modalities))
        )
    return tuple(made)


def a_snapshot(use_case: UseCase, demand: dict[int, Demand], clearance: int) -> Snapshot:
    team = Team("t", Budget(10**12, Period.MONTH, ZoneInfo("UTC")))
    role = Role("r", team, frozenset({"g"}), keys=False, use_cases=frozenset({"*"}), clearance=clearance)
    tenant = Tenant("acme", (role,), {"t": team}, {})
    return Snapshot(
        name="n", environment="test", digest="d", data_classes=CLASSES, demands=demand, tenants={"acme": tenant},
        use_cases={"u": use_case}, models={}, providers={}, operator_groups=frozenset(), strict=True, retention_days=1,
        bodies=Bodies(),
    )  # fmt: skip


def a_use_case(
    given_models: tuple[Model, ...], strategy: Strategy, rules: tuple[Rule, ...], data_class: int
) -> UseCase:
    return UseCase(
        name="u", job="", owner="t", risk="minimal", data_class=data_class, mode=Mode.ENFORCE,
        tokens=TokenCaps(10_000, 0, 500), strategy=strategy, models=given_models,
        weights=tuple(1.0 for _ in given_models), rules=rules,
        abilities=frozenset().union(*(model.abilities for model in given_models)),
    )  # fmt: skip


def a_request(*, image: bool) -> Request:
    content: object = "Hello"
    if image:
        content = [{"type": "image_url", "image_url": {"url": "https://pictures.example/cat.png"}}]
    return replace(a_chat("x", messages=[{"role": "user", "content": content}]), model="u")


@given(
    given_models=models(),
    strategy=st.sampled_from(Strategy),
    floor=st.integers(0, 3),
    raised=st.sampled_from(["", *CLASSES]),
    clearance=st.integers(0, 3),
    demand=st.dictionaries(st.integers(0, 3), demands),
    allowed=st.none() | st.frozensets(st.sampled_from(NAMES), min_size=1),
    image=st.booleans(),
)
def test_no_denied_model_is_ever_in_a_route(
    given_models: tuple[Model, ...], strategy: Strategy, floor: int, raised: str, clearance: int,
    demand: dict[int, Demand], allowed: frozenset[str] | None, image: bool,
) -> None:  # fmt: skip
    """Promise 1: what policy forbids cannot be reached, whatever the strategy."""
    rules = () if allowed is None else (Rule("only", "true", lambda facts: True, allowed),)
    every = {rank: demand.get(rank, Demand()) for rank in range(4)}
    snapshot = a_snapshot(a_use_case(given_models, strategy, rules, floor), every, clearance)
    arrival = Arrival(Dialect.OPENAI_CHAT, Credentials(), None, data_class=raised)  # type: ignore[arg-type]
    op, request = an_op(), a_request(image=image)
    principal = Principal("acme", "ada", groups=("g",))
    try:
        grant = make_authorize(snapshot)(op, principal, request, arrival)
        hold = Hold(op.id, "acme", estimate(request, grant.permitted, 500), (), Standing())
        route = make_route(Fleet(0, lambda *_: None), MemoryLedger())(op, grant, hold, request, Fitted(500, 100, {}))
    except Refusal:
        return
    rank = CLASSES.index(raised) if raised else floor
    assert floor <= rank <= clearance, "a class above the clearance, or a lowered one, was let through"
    for model in route.models:
        assert unmet(model.provider.boundary, every[rank], "2026-11-21") == ""
        assert allowed is None or model.name in allowed
        assert Ability.CHAT in model.abilities
        assert not image or "image" in model.modalities
    named = [candidate.model for candidate in route.candidates]
    assert sorted(named) == sorted(model.name for model in given_models), "every model is a candidate, once"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_an_undecidable_rule_refuses(strategy: Strategy) -> None:
    def broken(facts: object) -> bool:
        raise ValueError("no such fact")

    provider = a_provider("x", None)
    use_case = a_use_case((a_model(provider),), strategy, (Rule("r1", "?", broken, frozenset({"small"})),), 0)
    arrival = Arrival(Dialect.OPENAI_CHAT, Credentials(), None)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="condition_failed"):
        make_authorize(a_snapshot(use_case, {rank: Demand() for rank in range(4)}, 3))(
            an_op(), Principal("acme", "ada", groups=("g",)), a_request(image=False), arrival
        )
