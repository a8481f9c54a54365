"""Which role of a tenant lets a principal use a use case, with every role's reason in words.

Pure: the authorize stage takes its role from here and ``shipworthy token explain`` prints the same reasons, so that the two
cannot disagree.
"""

from __future__ import annotations

from shipworthy.model.identity import Principal
from shipworthy.model.policy import Role, Tenant

EVERY_USE_CASE = "*"


def choose_role(tenant: Tenant, principal: Principal, use_case: str) -> tuple[Role | None, tuple[str, ...]]:
    """The first role, in the manifest's order, that matches the principal and lists the use case; and why, role by role.

    A role matches a token by a shared group, and a service key by being the role that the key is bound to. Where a service
    acts for a person, the person's groups choose the role and the service must be granted the use case too: acting for
    someone never gives more than either has. A key's own use cases narrow, never widen.
    """
    if not lists(principal.key_use_cases, use_case):
        return None, (f"the key's own use cases [{words(principal.key_use_cases)}] do not hold {use_case}",)
    if acts_for_someone(principal):
        refused = actor_refused(tenant, principal, use_case)
        if refused:
            return None, refused
    reasons: list[str] = []
    for role in tenant.roles:
        matched, why = match_subject(role, principal)
        granted = matched and lists(role.use_cases, use_case)
        reasons.append(f"role {role.name}: {why}{'' if not matched else listing(role, use_case)}")
        if granted:
            return role, tuple(reasons)
    return None, tuple(reasons) or (f"tenant {tenant.name} has no roles",)


def clearance_of(tenant: Tenant, principal: Principal, role: Role) -> int:
    """The rank that ``role`` gives, lowered to the highest that an acting service has itself. The claim is not in it."""
    if not acts_for_someone(principal):
        return role.clearance
    actor_ranks = [other.clearance for other in tenant.roles if match_actor(other, principal)[0]]
    return min(role.clearance, max(actor_ranks, default=-1))


def acts_for_someone(principal: Principal) -> bool:
    """Whether a service showed its own credential beside a person's token.

    A single token that names its actor (RFC 8693 ``act``) is not meant: there the issuer has already decided.
    """
    return bool(principal.actor and (principal.key_id or principal.actor_groups is not None))


def actor_refused(tenant: Tenant, principal: Principal, use_case: str) -> tuple[str, ...]:
    """Why the acting service itself may not use the use case; empty when it may."""
    reasons: list[str] = []
    for role in tenant.roles:
        matched, why = match_actor(role, principal)
        if matched and lists(role.use_cases, use_case):
            return ()
        reasons.append(
            f"actor {principal.actor}, role {role.name}: {why}{'' if not matched else listing(role, use_case)}"
        )
    return tuple(reasons) or (f"tenant {tenant.name} has no roles",)


def match_subject(role: Role, principal: Principal) -> tuple[bool, str]:
    if principal.key_id and not principal.actor:
        return match_key(role, principal.key_role)
    return match_groups(role, principal.groups)


def match_actor(role: Role, principal: Principal) -> tuple[bool, str]:
    if principal.key_id:
        return match_key(role, principal.key_role)
    return match_groups(role, principal.actor_groups or ())


def match_key(role: Role, key_role: str) -> tuple[bool, str]:
    if role.name != key_role:
        return False, f"the service key is bound to role {key_role}"
    if not role.keys:
        return False, "service keys may not carry this role (keys: true is not set)"
    return True, "the service key is bound to it"


def match_groups(role: Role, groups: tuple[str, ...]) -> tuple[bool, str]:
    if not role.groups:
        return False, "it names no groups, so no token matches it"
    shared = role.groups.intersection(groups)
    if not shared:
        return False, f"none of its groups [{words(sorted(role.groups))}] is among [{words(groups)}]"
    return True, f"matched by group {min(shared)}"


def listing(role: Role, use_case: str) -> str:
    if lists(role.use_cases, use_case):
        return f", and it lists {use_case}"
    return f", but its use cases [{words(sorted(role.use_cases))}] do not hold {use_case}"


def lists(use_cases: frozenset[str] | tuple[str, ...], use_case: str) -> bool:
    return use_case in use_cases or EVERY_USE_CASE in use_cases


def words(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
