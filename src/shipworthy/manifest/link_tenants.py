"""``tenants`` → tenants with their teams, roles and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import ZoneInfo

from shipworthy.manifest.linking import UTC_ZONE, Linking, limits_of
from shipworthy.manifest.problem import KeyPath, quoted
from shipworthy.manifest.shape_identity import RoleShape, RunawayShape, TenantShape
from shipworthy.model.money import NANO_PER_USD
from shipworthy.model.policy import Budget, Role, Runaway, Team, Tenant, UseCase, Watched

UseCases = Mapping[str, UseCase]

AT_LEAST_NANO_PER_MIN = NANO_PER_USD // 2
"""Nobody is paused for less unless the manifest says so."""


def link_tenants(linking: Linking, use_cases: UseCases) -> dict[str, Tenant]:
    """Every tenant. A deployment without one serves nobody."""
    manifest = linking.manifest
    if not manifest.tenants and not {"tenants", "tenants_from"} & linking.shaped.names(()):
        linking.tree.report((), "no tenant exists", said="", wanted="tenants: {NAME: …}, or tenants_from: FOLDER")
    return {name: _tenant(linking, name, shape, use_cases) for name, shape in manifest.tenants.items()}


def _tenant(linking: Linking, name: str, shape: TenantShape, use_cases: UseCases) -> Tenant:
    path: KeyPath = ("tenants", name)
    routed = _routed(linking)
    budget = linking.budget((*path, "budget"), shape.budget, routed)
    zone = budget.zone if budget else UTC_ZONE
    teams = {}
    for team, said in shape.teams.items():
        own = linking.budget((*path, "teams", team, "budget"), said.budget, routed, zone)
        teams[team] = Team(team, own, limits_of(said.limits))
    roles = _roles(linking, path, shape, teams, zone, use_cases)
    if not shape.roles and not linking.shaped.names((*path, "roles")):
        linking.tree.warn(path, "the tenant has no roles, so nobody of it may ask anything", wanted="roles: {NAME: …}")
    _same_end_user_budget(linking, path, roles)
    aliases = _aliases(linking, (*path, "aliases"), shape, use_cases)
    runaway = _runaway(linking, (*path, "runaway"), shape.runaway)
    return Tenant(name, roles, teams, aliases, budget, limits_of(shape.limits), runaway)


def _routed(linking: Linking) -> list[str]:
    """Every model that some use case routes to."""
    routes = (use_case.route for use_case in linking.manifest.use_cases.values())
    return list(dict.fromkeys(said.model for route in routes for said in route.models))


def _runaway(linking: Linking, path: KeyPath, shape: RunawayShape | None) -> Runaway | None:
    if shape is None:
        return None
    if len(set(shape.watch)) < len(shape.watch):
        linking.tree.report((*path, "watch"), "watched twice", wanted="each once")
    kept = linking.manifest.requirements.audit.retention_days
    if shape.normal_days > kept:
        what = f"rows are kept {kept} days only, so no older spend can be compared with"
        linking.tree.warn((*path, "normal_days"), what, said=str(shape.normal_days), wanted=f"at most {kept}")
    return Runaway(
        multiple=shape.multiple,
        at_least_nano_per_min=shape.at_least_usd_per_min or AT_LEAST_NANO_PER_MIN,
        window_minutes=shape.window_minutes,
        normal_days=shape.normal_days,
        watch=tuple(Watched(each) for each in shape.watch),
    )


def _roles(
    linking: Linking, path: KeyPath, shape: TenantShape, teams: Mapping[str, Team], zone: ZoneInfo, use_cases: UseCases
) -> tuple[Role, ...]:
    roles = []
    for name, said in shape.roles.items():
        here = (*path, "roles", name)
        team = teams.get(said.team)
        if team is None:
            linking.unknown((*here, "team"), "team of the tenant", said.team, teams, (*path, "teams"))
            continue
        roles.append(_role(linking, here, name, said, team, zone, use_cases))
    return tuple(roles)


def _role(
    linking: Linking, path: KeyPath, name: str, said: RoleShape, team: Team, zone: ZoneInfo, use_cases: UseCases
) -> Role:
    if not said.groups and not said.keys:
        what = "the role has neither groups nor keys, so it matches nobody"
        linking.tree.warn(path, what, wanted="groups: [...], or keys: true")
    if said.keys and not linking.manifest.identity.service_keys and "identity" in linking.shaped.names(()):
        what = "service keys may carry this role, but none are accepted"
        linking.tree.warn((*path, "keys"), what, hint="set identity.service_keys: true")
    each = linking.budget((*path, "each_end_user"), said.each_end_user, _routed(linking), zone)
    if each is not None and not said.may_assert_end_user:
        what = "no end user can be asserted with this role, so this budget never applies"
        linking.tree.warn((*path, "each_end_user"), what, hint="set may_assert_end_user: true")
    return Role(
        name=name,
        team=team,
        groups=frozenset(said.groups),
        keys=said.keys,
        use_cases=_named_use_cases(linking, (*path, "use_cases"), said, use_cases),
        clearance=_clearance(linking, path, said, use_cases),
        admin=said.admin,
        may_assert_end_user=said.may_assert_end_user,
        each_end_user=each,
    )


def _named_use_cases(linking: Linking, path: KeyPath, said: RoleShape, use_cases: UseCases) -> frozenset[str]:
    if "*" in said.use_cases and len(said.use_cases) > 1:
        linking.tree.warn(path, "'*' already is every use case", wanted='["*"], or names only')
    for index, name in enumerate(said.use_cases):
        if name != "*" and name not in use_cases:
            linking.unknown((*path, index), "use case", name, linking.shaped.names(("use_cases",)), ("use_cases",))
    return frozenset({"*"} if "*" in said.use_cases else said.use_cases)


def _clearance(linking: Linking, path: KeyPath, said: RoleShape, use_cases: UseCases) -> int:
    """What the role states; else the highest class of the use cases that it names, which it may ask anyway."""
    reach = [case for name, case in use_cases.items() if "*" in said.use_cases or name in said.use_cases]
    if said.clearance is None:
        return max((case.data_class for case in reach), default=0)
    rank = linking.rank((*path, "clearance"), said.clearance)
    if rank is None:
        return 0
    for case in reach:
        if case.data_class > rank and "*" not in said.use_cases:
            what = f"the use case {case.name} is {linking.classes[case.data_class]}, above this clearance: it stays refused"
            linking.tree.warn(
                (*path, "clearance"), what, said=quoted(said.clearance), hint="raise it, or drop the use case"
            )
    return rank


def _same_end_user_budget(linking: Linking, path: KeyPath, roles: tuple[Role, ...]) -> None:
    """One end user has one budget in a tenant, whichever role asserts it: two that differ would overlap."""
    first: tuple[str, Budget] | None = None
    for role in roles:
        if role.each_end_user is None:
            continue
        if first is None:
            first = role.name, role.each_end_user
        elif role.each_end_user != first[1]:
            what = (
                f"an end user's budget differs from the one in role {first[0]}; one end user has one budget in a tenant"
            )
            wanted = f"the same each_end_user as in role {first[0]}"
            linking.tree.report((*path, "roles", role.name, "each_end_user"), what, wanted=wanted)


def _aliases(linking: Linking, path: KeyPath, shape: TenantShape, use_cases: UseCases) -> dict[str, str]:
    aliases = {}
    declared = linking.shaped.names(("use_cases",))
    for alias, target in shape.aliases.items():
        if alias in declared:
            what = "an alias has the name of a use case, so it would hide it"
            linking.tree.report((*path, alias), what, said=quoted(alias), wanted="a name that no use case has")
        elif target not in use_cases:
            linking.unknown((*path, alias), "use case", target, declared, ("use_cases",))
        else:
            aliases[alias] = target
    return aliases
