"""Who asks, and what policy allows for this one request: claim → grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from shipworthy.model.policy import Level, Mode, Role, Team, Tenant, UseCase
    from shipworthy.model.route import Candidate, Lineup


class Credentials(Struct, frozen=True, gc=False):
    """What the headers said, unverified. No other header is identity.

    ``bearer``, ``x_api_key``, ``api_key`` are the three places a credential may stand; ``subject_token`` is the verified
    second token with which a service acts for a person (header ``x-shipworthy-subject-token``, RFC 8693).
    """

    bearer: str = ""
    x_api_key: str = ""
    api_key: str = ""
    subject_token: str = ""


class Principal(Struct, frozen=True):
    """A verified sender: a subject and, when a service acts for someone, the actor too."""

    tenant: str
    subject: str
    actor: str = ""  # the service that acts, when it is not the subject itself
    kind: str = "person"  # person | service
    issuer: str = ""  # "" for a service key
    key_id: str = ""  # public id of the service key, "" for a JWT
    key_role: str = ""  # the role a service key is bound to
    key_use_cases: tuple[str, ...] = ("*",)  # a key's scope: narrows the role's use cases, never widens them
    groups: tuple[str, ...] = ()
    actor_groups: tuple[str, ...] | None = None  # the acting service's own; None = it showed no token of its own
    clearance: str | None = None  # the claim; None = the token says nothing, the role decides
    operator: bool = False  # matches `operators`: acts across tenants on the control plane only
    expires_at: float = 0.0  # unix seconds; 0 = never


class Considered(Struct, frozen=True):
    """What policy had found out when it decided: in the record of a refusal as much as in that of a grant."""

    use_case: str = ""
    alias: str = ""  # what the client named when it was an alias
    team: str = ""
    role: str = ""
    mode: str = ""
    data_class: str = ""
    clearance: str = ""
    candidates: tuple[Candidate, ...] = ()
    rules: tuple[str, ...] = ()  # ids of what decided, in order


class Grant(Struct, frozen=True):
    """What policy allows for this request: who may use which models, counted where."""

    principal: Principal
    tenant: Tenant
    team: Team
    role: Role
    use_case: UseCase
    data_class: int  # rank in force: the highest of use case and header
    mode: Mode
    permitted: Lineup  # the use case's order; never empty
    end_user: str  # asserted, unverified: counts for limits and accounting only
    session: str
    levels: tuple[Level, ...]  # every budget and limit that this request counts against, in lock order
    considered: Considered
