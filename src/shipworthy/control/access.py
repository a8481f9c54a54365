"""Who may work on the control plane, and the service keys that they make and take back.

Every act is recorded in one transaction with its effect: there is none without the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from shipworthy.model import service_key
from shipworthy.model.errors import Refusal
from shipworthy.model.grant import EVERY_USE_CASE, acts_for_someone, lists, match_actor, match_subject
from shipworthy.model.identity import Principal
from shipworthy.model.op import Op, uuid7
from shipworthy.model.policy import Role, Snapshot, Tenant
from shipworthy.model.reading import EVERY_TENANT, Authority
from shipworthy.ports import AdminAct, AdminRecorder, KeyStore, ServiceKey

KEY_NAME_LETTERS_MAX = 64
KEY_USE_CASES_MAX = 64
KEY_DAYS_MAX = 3650


class KeyAsked(Struct, frozen=True, kw_only=True):
    """The key that someone wants. Without ``expires_days`` it lasts until it is revoked."""

    tenant: str
    role: str
    name: str = ""
    use_cases: tuple[str, ...] = (EVERY_USE_CASE,)
    expires_days: int | None = None


def authority(snapshot: Snapshot, principal: Principal) -> Authority:
    """What ``principal`` may see and do on the control plane. Raises Refusal admin.forbidden.

    An operator works across tenants; whoever has a role with ``admin: true`` works within that tenant. A key narrowed to
    some use cases administers nothing, and a service that acts for someone needs the right itself, too.
    """
    actor = f"{principal.actor} for {principal.subject}" if principal.actor else principal.subject
    if principal.operator:
        return Authority(actor, EVERY_TENANT)
    tenant = snapshot.tenants.get(principal.tenant)
    if tenant is None or not lists(principal.key_use_cases, EVERY_USE_CASE) or not _administers(tenant, principal):
        raise Refusal("admin.forbidden", detail=f"{actor} of {principal.tenant} has no admin role")
    return Authority(actor, tenant.name)


def _administers(tenant: Tenant, principal: Principal) -> bool:
    roles = [role for role in tenant.roles if role.admin]
    if acts_for_someone(principal) and not any(match_actor(role, principal)[0] for role in roles):
        return False
    return any(match_subject(role, principal)[0] for role in roles)


def within(holder: Authority, tenant: str) -> str:
    """The scope to read: the tenant asked for, else all that ``holder`` covers. Raises Refusal admin.other_tenant."""
    if tenant and not holder.covers(tenant):
        raise Refusal("admin.other_tenant", tenant=tenant)
    return tenant or holder.scope


def act_of(op: Op, holder: Authority, act: str, tenant: str, target: str, facts: Mapping[str, str]) -> AdminAct:
    """One administrative act of ``holder``, to be recorded."""
    now_ns = op.clock.unix_ns()
    tenant = "" if tenant == EVERY_TENANT else tenant
    return AdminAct(
        id=uuid7(now_ns), at_unix_ns=now_ns, actor=holder.actor, act=act, tenant=tenant, target=target, facts=facts
    )


async def create_key(
    op: Op, keys: KeyStore, snapshot: Snapshot, pepper: bytes, holder: Authority, asked: KeyAsked
) -> tuple[ServiceKey, str]:
    """A new service key and its text, which exists only in what is returned. Raises Refusal admin.*."""
    within(holder, asked.tenant)
    role = _role_for_key(snapshot, asked)
    _check_use_cases(snapshot, role, asked.use_cases)
    secret = service_key.mint()
    created_at = datetime.fromtimestamp(op.clock.unix_ns() // 1_000_000_000, tz=UTC)
    key = ServiceKey(
        id=secret.id,
        tenant=asked.tenant,
        name=_name(asked.name) or secret.id,
        role=role.name,
        use_cases=asked.use_cases,
        created_at=created_at,
        expires_at=_expiry(created_at, asked.expires_days),
        revoked_at=None,
        created_by=holder.actor,
        secret_hmac=secret.proof(pepper),
    )
    facts = {"name": key.name, "role": key.role, "use_cases": ", ".join(key.use_cases)}
    if key.expires_at is not None:
        facts["expires_at"] = key.expires_at.isoformat()
    await keys.create(key, act_of(op, holder, "key.create", key.tenant, key.id, facts))
    return key, secret.reveal()


async def list_keys(
    op: Op, keys: KeyStore, acts: AdminRecorder, snapshot: Snapshot, holder: Authority, tenant: str = ""
) -> Sequence[ServiceKey]:
    """The keys of one tenant, or of every tenant that ``holder`` covers, newest first. The read is recorded before."""
    scope = within(holder, tenant)
    await acts.act(act_of(op, holder, "keys.read", scope, "keys", {}))
    tenants = sorted(snapshot.tenants) if scope == EVERY_TENANT else [scope]
    found = [key for name in tenants for key in await keys.list(name)]
    return sorted(found, key=lambda key: (key.created_at, key.id), reverse=True)


async def revoke_key(op: Op, keys: KeyStore, holder: Authority, key_id: str) -> ServiceKey:
    """Takes a key back: within a second no worker accepts it. Revoking again changes nothing and is no error."""
    key = await _held(keys, holder, key_id)
    if key.revoked_at is None:
        facts = {"name": key.name, "role": key.role}
        await keys.revoke(key.tenant, key.id, act_of(op, holder, "key.revoke", key.tenant, key.id, facts))
        key = await _held(keys, holder, key_id)
    return key


async def _held(keys: KeyStore, holder: Authority, key_id: str) -> ServiceKey:
    key = await keys.find(key_id) if len(key_id) == service_key.ID_LETTERS and key_id.isalnum() else None
    if key is None or not holder.covers(key.tenant):
        raise Refusal("admin.not_found", what="service key", id=key_id[:64])
    return key


def _role_for_key(snapshot: Snapshot, asked: KeyAsked) -> Role:
    tenant = snapshot.tenants.get(asked.tenant)
    if tenant is None:
        raise Refusal(
            "admin.invalid", name="tenant", reason=f"{asked.tenant!r} is not one of {_known(snapshot.tenants)}"
        )
    role = next((role for role in tenant.roles if role.name == asked.role), None)
    if role is None:
        names = _known(role.name for role in tenant.roles)
        raise Refusal("admin.invalid", name="role", reason=f"{asked.role!r} is not one of {names}")
    if not role.keys:
        raise Refusal(
            "admin.invalid", name="role", reason=f"{role.name} may not be carried by keys (keys: true is not set)"
        )
    return role


def _check_use_cases(snapshot: Snapshot, role: Role, use_cases: tuple[str, ...]) -> None:
    if not use_cases or len(use_cases) > KEY_USE_CASES_MAX:
        raise Refusal("admin.invalid", name="use_cases", reason=f"1 to {KEY_USE_CASES_MAX} names are wanted")
    for name in use_cases:
        if name != EVERY_USE_CASE and name not in snapshot.use_cases:
            reason = f"{name!r} is not one of {_known(snapshot.use_cases)}"
            raise Refusal("admin.invalid", name="use_cases", reason=reason)
        if name != EVERY_USE_CASE and not lists(role.use_cases, name):
            raise Refusal("admin.invalid", name="use_cases", reason=f"the role {role.name} does not hold {name!r}")


def _name(name: str) -> str:
    if len(name) > KEY_NAME_LETTERS_MAX or not name.isprintable():
        raise Refusal(
            "admin.invalid", name="name", reason=f"at most {KEY_NAME_LETTERS_MAX} printable letters are wanted"
        )
    return name.strip()


def _expiry(created_at: datetime, days: int | None) -> datetime | None:
    if days is None:
        return None
    if not 0 < days <= KEY_DAYS_MAX:
        raise Refusal("admin.invalid", name="expires", reason=f"1 to {KEY_DAYS_MAX} days are wanted")
    return created_at + timedelta(days=days)


def _known(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
