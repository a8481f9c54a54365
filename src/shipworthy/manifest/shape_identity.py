"""``identity``, ``tenants``, ``operators``: who may ask, and what their roles allow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from shipworthy.manifest.reference import wrong
from shipworthy.manifest.shape_values import (
    ENTRIES_MAX,
    AliasName,
    ClassName,
    Count,
    Name,
    Shape,
    Share,
    Usd,
    Word,
)

AlgorithmName = Literal["RS256", "PS256", "ES256", "EdDSA"]
PeriodName = Literal["hour", "day", "week", "month", "year"]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ClaimsShape(Shape):
    """Which claims are read. Dots go into objects: ``realm_access.roles``."""

    tenant: Word = "tenant"
    subject: Word = "sub"
    groups: Word = "groups"
    clearance: Word = "clearance"
    actor: Word = "act.sub"


class IssuerShape(Shape):
    """An issuer of JWTs. Without ``jwks_uri`` its keys are found by discovery; without ``tenants`` it may speak for all."""

    issuer: Word
    jwks_uri: Word | None = None
    audience: Annotated[
        list[Word],
        Field(min_length=1, max_length=16),
        BeforeValidator(_listed, json_schema_input_type=Word | list[Word]),
    ]
    algorithms: Annotated[list[AlgorithmName], Field(min_length=1)] = ["RS256"]
    claims: ClaimsShape = ClaimsShape()
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    tenants: Annotated[list[Name], Field(min_length=1, max_length=ENTRIES_MAX)] | None = None


class IdentityShape(Shape):
    """How senders prove who they are."""

    issuers: Annotated[list[IssuerShape], Field(max_length=64)] = []
    service_keys: bool = False
    development_issuer: bool = False


class ModelsInstead(Shape):
    """Which models serve on, with what is left, when a budget has no room for the dearest."""

    models: Annotated[list[Name], Field(min_length=1, max_length=64)]


def _exhausted(value: object) -> object:
    if value != "refuse" and not isinstance(value, dict | None):
        raise wrong("exhausted", "not a way to go on", wanted="refuse, or {models: [NAME]}")
    return None if value == "refuse" else value


def _ascending(shares: list[int]) -> list[int]:
    if shares != sorted(set(shares)):
        raise wrong("order", "not ascending, each once", wanted="shares such as [0.5, 0.8]")
    return shares


class BudgetShape(Shape):
    """Money per period. ``zone`` is the enclosing budget's unless given, and UTC at the end."""

    usd: Usd
    per: PeriodName
    zone: Word | None = None
    alert_at: Annotated[list[Share], Field(max_length=16), AfterValidator(_ascending)] = []
    on_exhausted: Annotated[
        ModelsInstead | None,
        BeforeValidator(_exhausted, json_schema_input_type=Literal["refuse"] | ModelsInstead),
    ] = None


class LimitsShape(Shape):
    """Counts per sliding minute, and requests at once."""

    requests_per_min: Count | None = None
    tokens_per_min: Count | None = None
    concurrent: Count | None = None


class TeamShape(Shape):
    """A team of a tenant, with its part of the money."""

    budget: BudgetShape | None = None
    limits: LimitsShape | None = None


class RoleShape(Shape):
    """What some of a tenant's principals may do. Roles are tried in order; the first that matches and grants counts.

    Without ``clearance`` a role is cleared for the highest class of the use cases that it names.
    """

    groups: Annotated[list[Word], Field(max_length=256)] = []
    keys: bool = False
    team: Name
    use_cases: Annotated[list[str], Field(min_length=1, max_length=1024)]
    clearance: ClassName | None = None
    admin: bool = False
    may_assert_end_user: bool = False
    each_end_user: BudgetShape | None = None


def _some(nano: int) -> int:
    if nano == 0:
        raise wrong("rate", "whoever is new has no normal and would be paused at once", wanted="more than 0")
    return nano


class RunawayShape(Shape):
    """When a spend rate is a runaway: ``multiple`` times its own normal, and at least ``at_least_usd_per_min``."""

    multiple: Annotated[int, Field(ge=2, le=10_000)]
    at_least_usd_per_min: Annotated[Usd, AfterValidator(_some)] | None = None
    window_minutes: Annotated[int, Field(ge=1, le=60)] = 5
    normal_days: Annotated[int, Field(ge=1, le=90)] = 7
    watch: Annotated[list[Literal["session", "principal"]], Field(min_length=1, max_length=2)] = [
        "session",
        "principal",
    ]


class TenantShape(Shape):
    """One tenant: an isolated customer or part of the firm."""

    budget: BudgetShape | None = None
    limits: LimitsShape | None = None
    runaway: RunawayShape | None = None
    teams: dict[Name, TeamShape] = {}
    roles: dict[Name, RoleShape] = {}
    aliases: dict[AliasName, str] = {}


class OperatorsShape(Shape):
    """Who runs the deployment, across tenants, on the control plane only."""

    groups: Annotated[list[Word], Field(min_length=1, max_length=256)]
    tenant_claim_optional: bool = False
