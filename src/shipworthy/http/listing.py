"""GET /v1/models: the use cases and aliases that the caller may name, in OpenAI's shape."""

from __future__ import annotations

from shipworthy.model.errors import Refusal
from shipworthy.model.grant import choose_role
from shipworthy.model.identity import Principal
from shipworthy.model.policy import Snapshot


def models_body(snapshot: Snapshot, principal: Principal) -> dict[str, object]:
    """What the caller may put into ``model``, sorted by name."""
    return {"object": "list", "data": [_entry(name, of) for name, of in sorted(_usable(snapshot, principal).items())]}


def model_body(snapshot: Snapshot, principal: Principal, name: str) -> dict[str, object]:
    """One of them. Raises Refusal authorize.unknown_use_case."""
    of = _usable(snapshot, principal).get(name)
    if of is None:
        raise Refusal("authorize.unknown_use_case", use_case=name)
    return _entry(name, of)


def _usable(snapshot: Snapshot, principal: Principal) -> dict[str, str]:
    tenant = snapshot.tenants[principal.tenant]
    granted = {name: name for name in snapshot.use_cases if choose_role(tenant, principal, name)[0] is not None}
    return granted | {alias: name for alias, name in tenant.aliases.items() if name in granted}


def _entry(name: str, use_case: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": f"shipworthy:{use_case}"}
