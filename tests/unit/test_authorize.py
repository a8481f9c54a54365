"""authorize: what observing does not waive, what cannot be guessed, and how long what is held must last."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from shipworthy.kit.builders import an_op
from shipworthy.kit.calls import a_chat, a_model, a_provider
from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Credentials, Grant, Principal
from shipworthy.model.money import Period
from shipworthy.model.op import Op
from shipworthy.model.policy import Bodies, Budget, Mode, Role, Snapshot, Team, Tenant, TokenCaps, UseCase
from shipworthy.model.route import Ability, Demand, Strategy, Timeouts
from shipworthy.ports import Arrival
from shipworthy.stages.authorize import make_authorize
from shipworthy.stages.levels import levels, make_levels, spelled

HOUR = Timeouts(total_ms=3_600_000)
MODELS = tuple(
    replace(a_model(a_provider("x", None, given)), name=f"m{n}") for n, given in enumerate((Timeouts(), HOUR))
)


def a_snapshot(mode: Mode) -> Snapshot:
    team = Team("t")
    role = Role("r", team, frozenset({"g"}), keys=False, use_cases=frozenset({"*"}), clearance=0)
    tenant = Tenant("acme", (role,), {"t": team}, {})
    use_case = UseCase(
        name="u", job="", owner="t", risk="minimal", data_class=0, mode=mode, tokens=TokenCaps(10_000, 0, 500),
        strategy=Strategy.FIRST, models=MODELS, weights=(1.0, 1.0), rules=(), abilities=frozenset(Ability),
    )  # fmt: skip
    return Snapshot(
        name="n", environment="test", digest="d", data_classes=("public",), demands={0: Demand()},
        tenants={"acme": tenant}, use_cases={"u": use_case}, models={}, providers={}, operator_groups=frozenset(),
        strict=True, retention_days=1, bodies=Bodies(),
    )  # fmt: skip


def granted(mode: Mode = Mode.ENFORCE, groups: tuple[str, ...] = ("g",), op: Op | None = None, **fields: Any) -> Grant:
    async def nothing() -> bytes:
        return b""

    arrival = Arrival(Dialect.OPENAI_CHAT, Credentials(), nothing)
    request = replace(a_chat(**fields), model=fields.get("model", "u"))
    return make_authorize(a_snapshot(mode))(op or an_op(), Principal("acme", "ada", groups=groups), request, arrival)


@pytest.mark.parametrize(
    "asked",
    [
        {"web_search_options": {}},
        {"service_tier": "priority"},
        {"tools": [{"type": "web_search"}]},
        {"plugins": [{"id": "web"}]},
    ],
    ids=["search", "tier", "tool", "plugin"],
)
def test_money_that_nobody_priced_is_refused_while_observing_too(asked: dict[str, Any]) -> None:
    """Promise 2: an observed use case still pays."""
    with pytest.raises(Refusal, match=r"authorize\.hosted_tool"):
        granted(Mode.OBSERVE, **asked)


def test_what_is_only_kept_by_a_provider_is_observed() -> None:
    assert "observed:authorize.hosted_tool" in granted(Mode.OBSERVE, store=True).considered.rules
    with pytest.raises(Refusal, match=r"authorize\.hosted_tool"):
        granted(Mode.ENFORCE, store=True)


def test_who_has_no_role_cannot_tell_which_use_cases_exist() -> None:
    codes = set()
    for name in ("u", "guess"):
        with pytest.raises(Refusal) as refused:
            granted(groups=("stranger",), model=name)
        codes.add((refused.value.code, refused.value.message))
    assert len(codes) == 1


def test_what_is_held_outlives_the_slowest_provider() -> None:
    """Else the sweeper would settle a request that still runs."""
    op = an_op()
    granted(op=op)
    assert op.deadline_ns - op.clock.monotonic_ns() > 3_500 * 10**9


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_two_end_users_never_share_a_level(ids: list[str]) -> None:
    """A backend's users choose their ids: none may spend, or pose as, another's budget."""
    keys = [spelled(one) for one in ids]
    assert keys[0] != keys[1]
    assert all(len(key) <= 256 and key.isascii() and key.isprintable() and "/" not in key for key in keys)


def test_ids_that_a_cut_would_make_equal_differ() -> None:
    assert spelled("a" * 300) != spelled("a" * 301)
    assert spelled("a\0") != spelled("a\ufffd")
    assert spelled("ada@example.com") == "ada@example.com"


def test_an_end_user_has_one_budget_whichever_role_asserts_it() -> None:
    budget = Budget(10**9, Period.DAY, ZoneInfo("UTC"))
    team = Team("t")
    roles = [
        Role(name, team, frozenset(), True, frozenset({"*"}), 0, may_assert_end_user=True, each_end_user=budget)
        for name in ("web", "mobile")
    ]
    tenant = Tenant("acme", tuple(roles), {"t": team}, {})
    use_case = a_snapshot(Mode.ENFORCE).use_cases["u"]
    assert levels(tenant, roles[0], use_case, "ada") == levels(tenant, roles[1], use_case, "ada") != ()


def test_a_path_has_the_same_levels_each_time() -> None:
    """Whoever comes later knows the path by the object: a request on a known one pays for no calendar and no sorting."""
    budget = Budget(10**9, Period.DAY, ZoneInfo("UTC"))
    team = Team("t", budget)
    web = Role("web", team, frozenset({"g"}), True, frozenset({"*"}), 0, may_assert_end_user=True, each_end_user=budget)
    tenants = {name: Tenant(name, (web,), {"t": team}, {}) for name in ("acme", "other")}
    levels_of = make_levels(replace(a_snapshot(Mode.ENFORCE), tenants=tenants))
    first = levels_of("acme", "web", "u", "")
    assert levels_of("acme", "web", "u", "") is first
    assert [level.key for level in first] == ["team=t"]
    assert [level.key for level in levels_of("acme", "web", "u", "ada")] == ["end_user=ada", "team=t"]
    assert levels_of("acme", "web", "u", "ada") is not levels_of("other", "web", "u", "ada")
