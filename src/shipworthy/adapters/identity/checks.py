"""May this token be trusted, and whom does it name? Pure checks in the order in which they are made.

The verifier and ``token explain`` call the same functions, so that an explanation is what would really happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from shipworthy.adapters.identity.keys import KeySet, VerifyingKey
from shipworthy.adapters.identity.reading import JsonObject, Token, malformed, quoted
from shipworthy.adapters.identity.settings import ClaimNames, IdentitySettings, IssuerSettings
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Principal

NAME_CHARS_MAX = 256
GROUPS_MAX = 1_000
AUDIENCES_MAX = 100
SECONDS_MAX = 253_402_300_799  # the end of the year 9999


class Validity(Struct, frozen=True):
    """The wall-clock time between which a token counts, leeway included, in unix nanoseconds."""

    from_ns: int
    until_ns: int


def find_issuer(token: Token, issuers: Mapping[str, IssuerSettings]) -> IssuerSettings:
    """The settings of the issuer that the token names, letter by letter."""
    settings = issuers.get(token.issuer)
    if settings is None:
        raise Refusal("identify.unknown_issuer", detail=f"iss {quoted(token.issuer)}")
    return settings


def check_algorithm(token: Token, settings: IssuerSettings) -> None:
    """The issuer must list the algorithm: `none` and HMAC cannot be listed."""
    if token.algorithm not in settings.algorithms:
        wanted = ", ".join(settings.algorithms)
        raise Refusal("identify.algorithm_refused", detail=f"alg {quoted(token.algorithm)}, the issuer lists {wanted}")


def find_keys(token: Token, keys: KeySet) -> tuple[VerifyingKey, ...]:
    """The keys that may have signed the token: those of its kid; without a kid, the only one that fits.

    Empty when a newer set may hold the key. A key that is there but serves another algorithm is no reason to look further.
    """
    found = keys.fitting(token.kid, token.algorithm)
    if not found and token.kid is not None and any(key.kid == token.kid for key in keys.keys):
        detail = f"alg {token.algorithm} does not fit the key, kid {quoted(token.kid)}"
        raise Refusal("identify.algorithm_refused", detail=detail)
    if token.kid is None and len(found) > 1:
        detail = f"the token names no kid and {len(found)} keys fit {token.algorithm}"
        raise Refusal("identify.unknown_key", detail=detail)
    return found


def unknown_key(token: Token, keys: KeySet) -> Refusal:
    """What to tell whoever signed with a key that is not published, or may not be used."""
    detail = f"kid {quoted(token.kid)} is not among {len(keys.keys)} usable keys"
    left = [why for why in keys.left if token.kid is not None and f"(kid {quoted(token.kid)})" in why]
    return Refusal("identify.unknown_key", detail="; ".join([detail, *left]))


def check_signature(token: Token, keys: tuple[VerifyingKey, ...]) -> None:
    if not any(key.verifies(token.algorithm, token.signed, token.signature) for key in keys):
        raise Refusal("identify.bad_signature", detail=f"{token.algorithm}, kid {quoted(token.kid)}")


def read_validity(token: Token, settings: IssuerSettings) -> Validity:
    """When the token counts: from the later of iat and nbf until exp, widened by the leeway on both sides."""
    expires = read_seconds(token.claims, "exp")
    if expires is None:
        raise Refusal("identify.missing_claim", claim="exp", detail="exp is absent: a token must end")
    issued = read_seconds(token.claims, "iat")
    begins = read_seconds(token.claims, "nbf")
    if issued is not None and issued > expires:
        raise malformed("iat is after exp")
    earliest = max(issued or 0, begins or 0)
    leeway_ns = settings.leeway_s * 1_000_000_000
    return Validity(int(earliest * 1e9) - leeway_ns if earliest else 0, int(expires * 1e9) + leeway_ns)


def check_time(validity: Validity, now_ns: int) -> None:
    if now_ns >= validity.until_ns:
        raise Refusal("identify.expired", detail=f"{(now_ns - validity.until_ns) / 1e9:.0f} s ago, leeway counted")
    if now_ns < validity.from_ns:
        early_s = (validity.from_ns - now_ns) / 1e9
        raise Refusal("identify.not_yet_valid", detail=f"iat or nbf is {early_s:.0f} s ahead, leeway counted")


def check_audience(token: Token, settings: IssuerSettings) -> None:
    audience = token.claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    if len(listed) > AUDIENCES_MAX or not all(isinstance(one, str) for one in listed):
        raise Refusal("identify.missing_claim", claim="aud", detail="aud is not a text or a list of texts")
    if not any(wanted in listed for wanted in settings.audiences):
        wanted = " or ".join(settings.audiences)
        raise Refusal("identify.wrong_audience", detail=f"aud {quoted(audience)}, wanted {wanted}")


def read_principal(token: Token, settings: IssuerSettings, identity: IdentitySettings) -> Principal:
    """Whom the token names. A tenant is demanded of everyone but operators, where the manifest says so."""
    claims, names = token.claims, settings.claims
    groups = read_groups(claims, names.groups)
    # An issuer that is bound to tenants can write any group, so it makes no operators.
    operator = settings.tenants is None and not identity.operator_groups.isdisjoint(groups)
    tenant = read_name(claims, names.tenant) or ""
    if not tenant and not (operator and identity.tenant_claim_optional):
        raise missing(names.tenant, "it is absent")
    if tenant and settings.tenants is not None and tenant not in settings.tenants:
        detail = f"issuer {settings.issuer} may not speak for tenant {quoted(tenant)}"
        raise Refusal("identify.unknown_tenant", detail=detail)
    subject = read_name(claims, names.subject)
    if subject is None:
        raise missing(names.subject, "it is absent")
    return Principal(
        tenant=tenant,
        subject=subject,
        actor=read_actor(claims, names) or "",
        kind=read_kind(claims, subject),
        issuer=settings.issuer,
        groups=groups,
        clearance=read_name(claims, names.clearance),
        operator=operator,
        expires_at=read_seconds(claims, "exp") or 0.0,
    )


def read_kind(claims: JsonObject, subject: str) -> Literal["person", "service"]:
    """A token whose subject is the client itself was given to a service (RFC 9068 §2.2, client credentials)."""
    return "service" if subject in (claims.get("client_id"), claims.get("azp")) else "person"


def read_actor(claims: JsonObject, names: ClaimNames) -> str | None:
    """Who acts for the subject; a token that has `act` without a usable actor is refused, not read as nobody."""
    actor = read_name(claims, names.actor)
    if actor is None and claims.get("act") is not None and names.actor.partition(".")[0] == "act":
        raise missing(names.actor, "act names no actor")
    return actor


def read_groups(claims: JsonObject, name: str) -> tuple[str, ...]:
    """The groups, from a list or from a single text (which is one group, whatever is in it)."""
    value = find_claim(claims, name)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if len(listed) > GROUPS_MAX:
        raise missing(name, f"{len(listed)} groups, at most {GROUPS_MAX} are read")
    return tuple(dict.fromkeys(check_name(one, name) for one in listed))


def read_name(claims: JsonObject, name: str) -> str | None:
    value = find_claim(claims, name)
    return None if value is None else check_name(value, name)


def check_name(value: object, claim: str) -> str:
    """``value`` as a name: a text that is neither empty nor long and holds nothing that a log or a page would mistake."""
    if not isinstance(value, str):
        raise missing(claim, f"it is not a text but {type(value).__name__}")
    if not 0 < len(value) <= NAME_CHARS_MAX:
        raise missing(claim, f"it has {len(value)} characters, 1 to {NAME_CHARS_MAX} are read")
    if not value.isprintable() or value != value.strip():
        raise missing(claim, "it has control or invisible characters, or spaces at its ends")
    return value


def find_claim(claims: JsonObject, name: str) -> object:
    """The claim ``name``; where there is none, the value at that dotted path. None when neither is there."""
    if name in claims:
        return claims[name]
    value: object = claims
    for step in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def read_seconds(claims: JsonObject, name: str) -> float | None:
    """A NumericDate (RFC 7519 §2): a number, not a text or a truth value, within what a calendar holds."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal("identify.missing_claim", claim=name, detail=f"{name} is not a number")
    if not 0 <= value <= SECONDS_MAX:
        raise Refusal("identify.missing_claim", claim=name, detail=f"{name} is out of range")
    return value


def missing(claim: str, detail: str) -> Refusal:
    return Refusal("identify.missing_claim", claim=claim, detail=f"{claim}: {detail}")
