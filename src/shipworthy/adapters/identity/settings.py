"""What this folder must be told: which issuers are trusted, for whom they may speak, and how their keys are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from shipworthy.manifest.deployment import Identity
from shipworthy.model.errors import StartRefused

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
LEEWAY_S_MAX = 300
ISSUERS_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNames:
    """Where a token says what. A name is a claim, else a dotted path into objects (``realm_access.roles``)."""

    tenant: str = "tenant"
    subject: str = "sub"
    groups: str = "groups"
    clearance: str = "clearance"
    actor: str = "act.sub"  # RFC 8693 §4.1: the current actor is the outermost one


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """One trusted issuer. ``jwks_uri`` "" = found by discovery below ``issuer``.

    ``tenants`` None = it may speak for every tenant; a firm whose tenants bring their own issuers names them here, or one
    tenant's issuer could sign itself into another.
    """

    issuer: str
    audiences: tuple[str, ...]  # a token must name one of them
    algorithms: tuple[str, ...] = ("RS256",)
    jwks_uri: str = ""
    claims: ClaimNames = field(default_factory=ClaimNames)
    leeway_s: int = 30
    tenants: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if not self.issuer or not self.audiences or not all(self.audiences):
            raise wrong(f"issuer {self.issuer!r}, audience {self.audiences!r}", "name both, exactly as tokens do")
        unknown = sorted(set(self.algorithms) - set(ALGORITHMS))
        if unknown or not self.algorithms:
            raise wrong(f"algorithms {list(self.algorithms)} of {self.issuer}", f"use some of {', '.join(ALGORITHMS)}")
        if not 0 <= self.leeway_s <= LEEWAY_S_MAX:
            raise wrong(f"leeway_s {self.leeway_s} of {self.issuer}", f"use 0 to {LEEWAY_S_MAX} seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Everything that decides whether a token counts. A new manifest is a new value, and a new verifier."""

    issuers: tuple[IssuerSettings, ...]
    operator_groups: frozenset[str] = frozenset()
    tenant_claim_optional: bool = False  # for operators only

    def __post_init__(self) -> None:
        names = [issuer.issuer for issuer in self.issuers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise wrong(f"issuer {twice[0]} twice", "list each issuer once: `iss` chooses between them")
        if len(names) > ISSUERS_MAX:
            raise wrong(f"{len(names)} issuers", f"list at most {ISSUERS_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTimes:
    """How an issuer's keys are kept: the bounds that the reference of the manifest states."""

    refresh_s: float = 60.0  # a removed key stops counting within this and one fetch
    seek_interval_s: float = 10.0  # at least this between two fetches that unknown kids may cause
    fetch_timeout_s: float = 5.0
    stale_s: float = 3600.0  # how long cached keys serve while the issuer cannot be reached


def identity_settings(identity: Identity, operator_groups: frozenset[str]) -> IdentitySettings:
    """What a linked manifest says of issuers, in this folder's words."""
    issuers = tuple(
        IssuerSettings(
            issuer=one.issuer,
            audiences=one.audience,
            algorithms=one.algorithms,
            jwks_uri=one.jwks_uri,
            claims=ClaimNames(
                tenant=one.claims.tenant,
                subject=one.claims.subject,
                groups=one.claims.groups,
                clearance=one.claims.clearance,
                actor=one.claims.actor,
            ),
            leeway_s=one.leeway_s,
            tenants=one.tenants,
        )
        for one in identity.issuers
    )
    return IdentitySettings(
        issuers=issuers, operator_groups=operator_groups, tenant_claim_optional=identity.operators_without_tenant
    )


def wrong(said: str, wanted: str) -> StartRefused:
    return StartRefused("identity.settings", f"identity.issuers: {said}", wanted)


def loopback(url: str) -> bool:
    """Whether ``url`` stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def insecure(url: str) -> str:
    """Why keys may not be fetched from ``url``; "" when they may. Plain http is for loopback only."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it is not an http(s) address"
    if parts.username or parts.password:
        return "it carries a password"
    if parts.scheme == "http" and not loopback(url):
        return "plain http is allowed on loopback only"
    return ""
