"""Builders for tests of stages: what policy allowed for a request, over given models and levels."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from msgspec import structs

from shipworthy.kit.calls import a_model, a_provider
from shipworthy.model.identity import Considered, Grant, Principal
from shipworthy.model.money import Component, Period, Price
from shipworthy.model.policy import Budget, Level, Mode, Role, Team, Tenant, TokenCaps, UseCase
from shipworthy.model.route import Ability, Candidate, Lineup, Model, Strategy

UTC_ZONE = ZoneInfo("UTC")


def a_priced_model(name: str, pico_per_token: int, output_tokens_max: int = 4_000) -> Model:
    """A model whose output costs four times its input; 0 = free."""
    price = Price({Component.INPUT: pico_per_token, Component.OUTPUT: 4 * pico_per_token}, source="test")
    model = a_model(a_provider("test", None))
    return structs.replace(model, name=name, price=price, output_tokens_max=output_tokens_max)


def a_budget(cap_nano: int, *on_exhausted: str, per: Period = Period.MONTH) -> Budget:
    return Budget(cap_nano, per, UTC_ZONE, on_exhausted=on_exhausted)


def a_use_case(models: Sequence[Model], strategy: Strategy = Strategy.FIRST, output_max: int = 1_000) -> UseCase:
    return UseCase(
        name="support", job="Answer.", owner="t", risk="minimal", data_class=0, mode=Mode.ENFORCE,
        tokens=TokenCaps(10_000, 0, output_max), strategy=strategy, models=tuple(models),
        weights=tuple(1.0 for _ in models), rules=(), abilities=frozenset({Ability.CHAT}),
    )  # fmt: skip


def a_grant(models: Sequence[Model], levels: Sequence[Level] = (), strategy: Strategy = Strategy.FIRST) -> Grant:
    """Ada of northwind may use every one of ``models``; what she spends counts at ``levels``."""
    team = Team("t")
    role = Role("r", team, frozenset({"g"}), keys=False, use_cases=frozenset({"*"}), clearance=0)
    return Grant(
        principal=Principal("northwind", "ada", groups=("g",)),
        tenant=Tenant("northwind", (role,), {"t": team}, {}),
        team=team,
        role=role,
        use_case=a_use_case(models, strategy),
        data_class=0,
        mode=Mode.ENFORCE,
        permitted=Lineup(models),
        end_user="",
        session="",
        levels=tuple(sorted(levels, key=lambda level: level.key)),
        considered=Considered(candidates=tuple(Candidate(m.name, "house", True, "permitted") for m in models)),
    )
