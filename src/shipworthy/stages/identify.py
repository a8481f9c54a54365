"""identify: credentials → principal. Who asks, from headers alone; the body is not read before this is known.

A service acts for a person by a second token (``x-shipworthy-subject-token``): then the person is the subject, with the
person's groups, and the service is the actor. Neither lends the other anything: authorize demands the use case of both,
clearance is the lower of both, and nobody is an operator through someone else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Credentials, Principal
from shipworthy.model.op import Op
from shipworthy.model.policy import Snapshot
from shipworthy.model.service_key import PREFIX
from shipworthy.ports import KeyVerifier, TokenVerifier

Identify = Callable[[Op, Credentials], Awaitable[Principal]]


def make_identify(
    snapshot: Snapshot, tokens: TokenVerifier, keys: KeyVerifier | None, *, across_tenants: bool = False
) -> Identify:
    """The stage over one snapshot. ``keys`` None = service keys are not accepted here.

    ``across_tenants`` is for the control plane: there an operator needs no tenant.
    """

    async def identify(op: Op, credentials: Credentials) -> Principal:
        credential = choose_credential(credentials)
        if credential.startswith(PREFIX):
            if keys is None:
                raise Refusal("identify.keys_disabled")
            principal = await keys.verify(op, credential)
        else:
            principal = await tokens.verify(op, credential)
        if credentials.subject_token:
            subject = await verify_subject(op, tokens, credentials.subject_token)
            principal = act_for(snapshot.data_classes, principal, subject)
        if not (across_tenants and principal.operator):
            check_tenant(snapshot, principal)
        return principal

    return identify


def check_tenant(snapshot: Snapshot, principal: Principal) -> None:
    """Whoever is of no tenant that the manifest names is nobody here."""
    if principal.tenant not in snapshot.tenants:
        issuer = principal.issuer or "a service key"
        raise Refusal("identify.unknown_tenant", detail=f"{issuer} names tenant {principal.tenant!a}")


def choose_credential(credentials: Credentials) -> str:
    """The one credential that the headers carry; the same value twice is one."""
    sent = {credentials.bearer, credentials.x_api_key, credentials.api_key} - {""}
    if not sent:
        raise Refusal("identify.missing_credential")
    if len(sent) > 1:
        raise Refusal("identify.conflicting_credentials", detail=f"{len(sent)} different values in the headers")
    return sent.pop()


async def verify_subject(op: Op, tokens: TokenVerifier, token: str) -> Principal:
    """The person that a subject token proves; its refusals say which of the two tokens is meant."""
    if token.startswith(PREFIX):
        raise Refusal("identify.actor_invalid", detail="the subject token is a service key; it must be a JWT")
    try:
        return await tokens.verify(op, token)
    except Refusal as refusal:
        refusal.detail = f"subject token: {refusal.detail}"
        raise


def act_for(data_classes: tuple[str, ...], service: Principal, subject: Principal) -> Principal:
    """``subject`` with ``service`` as its actor. Both must be of one tenant, and neither may act for someone already."""
    if not service.tenant or service.tenant != subject.tenant:
        raise Refusal("identify.actor_invalid", detail="the two tokens are of different tenants")
    if service.actor or subject.actor:
        raise Refusal("identify.actor_invalid", detail="one of the two tokens already names an actor")
    return replace(
        subject,
        actor=service.subject,
        key_id=service.key_id,
        key_role=service.key_role,
        key_use_cases=service.key_use_cases,
        actor_groups=None if service.key_id else service.groups,
        clearance=lower_claim(data_classes, service.clearance, subject.clearance),
        operator=False,
        expires_at=min((end for end in (service.expires_at, subject.expires_at) if end), default=0.0),
    )


def lower_claim(data_classes: tuple[str, ...], one: str | None, other: str | None) -> str | None:
    """The lower of two clearance claims; a claim that names no class of ours is the lowest, none says nothing."""
    said = [claim for claim in (one, other) if claim is not None]
    return min(said, key=lambda claim: data_classes.index(claim) if claim in data_classes else -1, default=None)
