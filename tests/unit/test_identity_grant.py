"""The role that lets a principal use a use case: first match in the manifest's order, with a reason for every role."""

from __future__ import annotations

import pytest

from shipworthy.model.grant import choose_role, clearance_of
from shipworthy.model.identity import Principal
from shipworthy.model.policy import Role, Team, Tenant

SUPPORT = Team("support")


def role(
    name: str, *groups: str, keys: bool = False, use_cases: tuple[str, ...] = ("support",), clearance: int = 1
) -> Role:
    return Role(name, SUPPORT, frozenset(groups), keys, frozenset(use_cases), clearance)


def tenant(*roles: Role) -> Tenant:
    return Tenant("northwind", roles, {"support": SUPPORT}, {})


AGENT = role("agent", "agents")
BACKEND = role("backend", keys=True, use_cases=("*",), clearance=2)
ADMIN = role("admin", "platform", use_cases=("*",), clearance=3)
HOUSE = tenant(AGENT, BACKEND, ADMIN)


def person(*groups: str) -> Principal:
    return Principal("northwind", "ada", groups=groups)


def key(bound_to: str = "backend", *, use_cases: tuple[str, ...] = ("*",)) -> Principal:
    return Principal("northwind", "bot", kind="service", key_id="k1", key_role=bound_to, key_use_cases=use_cases)


@pytest.mark.parametrize(
    ("principal", "use_case", "wanted"),
    [
        (person("agents"), "support", AGENT),
        (person("agents"), "billing", None),
        (person("agents", "platform"), "billing", ADMIN),
        (person("agents", "platform"), "support", AGENT),
        (person(), "support", None),
        (person("*"), "support", None),
        (person("backend"), "support", None),
        (key(), "billing", BACKEND),
        (key("agent"), "support", None),
        (key("nobody"), "support", None),
        (key(use_cases=("billing",)), "billing", BACKEND),
        (key(use_cases=("billing",)), "support", None),
        (key(use_cases=()), "support", None),
    ],
)
def test_the_first_role_that_matches_and_lists_is_taken(
    principal: Principal, use_case: str, wanted: Role | None
) -> None:
    assert choose_role(HOUSE, principal, use_case)[0] is wanted


def test_the_manifests_order_decides() -> None:
    first, second = role("one", "g"), role("two", "g")
    assert choose_role(tenant(first, second), person("g"), "support")[0] is first
    assert choose_role(tenant(second, first), person("g"), "support")[0] is second


def test_every_role_looked_at_has_its_reason() -> None:
    _, reasons = choose_role(HOUSE, person("agents"), "billing")
    assert reasons == (
        "role agent: matched by group agents, but its use cases [support] do not hold billing",
        "role backend: it names no groups, so no token matches it",
        "role admin: none of its groups [platform] is among [agents]",
    )
    assert choose_role(tenant(), person("g"), "x") == (None, ("tenant northwind has no roles",))


def test_groups_that_a_key_happens_to_hold_match_nothing() -> None:
    """A service key's rights are its role's; no group can be smuggled in beside it."""
    smuggled = Principal("northwind", "bot", key_id="k1", key_role="nobody", groups=("platform",))
    assert choose_role(HOUSE, smuggled, "support")[0] is None


def acting(key_role: str, *groups: str, use_cases: tuple[str, ...] = ("*",)) -> Principal:
    return Principal(
        "northwind", "ada", actor="bot", key_id="k1", key_role=key_role, key_use_cases=use_cases, groups=groups
    )


def test_acting_for_a_person_gives_never_more_than_either_has() -> None:
    narrow = role("narrow", keys=True, use_cases=("support",), clearance=0)
    house = tenant(narrow, BACKEND, AGENT, ADMIN)
    assert choose_role(house, acting("backend", "agents"), "support")[0] is AGENT
    assert choose_role(house, acting("backend", "agents"), "billing")[0] is None
    assert choose_role(house, acting("backend"), "support")[0] is None
    assert choose_role(house, acting("narrow", "platform"), "support")[0] is ADMIN
    chosen, reasons = choose_role(house, acting("narrow", "platform"), "billing")
    assert chosen is None
    assert "actor bot, role narrow: the service key is bound to it, but its use cases" in reasons[0]
    assert choose_role(house, acting("backend", "platform", use_cases=("billing",)), "support")[0] is None
    assert clearance_of(house, acting("narrow", "platform"), ADMIN) == 0
    assert clearance_of(house, acting("backend", "agents"), AGENT) == 1
    assert clearance_of(house, person("platform"), ADMIN) == 3


def test_an_acting_service_with_a_token_is_matched_by_its_own_groups() -> None:
    apps = role("apps", "apps", use_cases=("support",), clearance=0)
    house = tenant(apps, ADMIN)
    for_ada = Principal("northwind", "ada", actor="bot", groups=("platform",), actor_groups=("apps",))
    assert choose_role(house, for_ada, "support")[0] is ADMIN
    assert clearance_of(house, for_ada, ADMIN) == 0
    assert choose_role(house, for_ada, "billing")[0] is None
    stranger = Principal("northwind", "ada", actor="bot", groups=("platform",), actor_groups=())
    assert choose_role(house, stranger, "support")[0] is None


def test_a_single_token_that_names_its_actor_has_the_subjects_rights() -> None:
    """RFC 8693: the issuer that wrote `act` has already decided that the actor may."""
    delegated = Principal("northwind", "ada", actor="bot", groups=("platform",))
    assert choose_role(HOUSE, delegated, "billing")[0] is ADMIN
    assert clearance_of(HOUSE, delegated, ADMIN) == 3
