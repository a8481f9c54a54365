"""Takes a token apart for a person: every check with its result, in the order in which a request would meet them.

The checks are the verifier's own. What cannot be checked from here (an issuer that is out of reach) is said to be unchecked,
never passed. The signature itself is never part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from shipworthy.adapters.identity.checks import (
    Validity,
    check_algorithm,
    check_audience,
    check_signature,
    check_time,
    find_issuer,
    read_principal,
    read_validity,
)
from shipworthy.adapters.identity.reading import JsonObject, Token, quoted, read_object, read_segment, read_token
from shipworthy.adapters.identity.settings import IssuerSettings
from shipworthy.adapters.identity.verifier import JwtVerifier, find_trusted_keys
from shipworthy.model.errors import Refusal
from shipworthy.model.op import Op
from shipworthy.ports import TokenCheck, TokenReading

CHECKS = ("reading", "issuer", "algorithm", "key", "signature", "time", "audience", "claims")
UNREACHABLE = "identify.issuer_unavailable"

Found = TypeVar("Found")


class JwtInspector:
    """The TokenInspector over a verifier's issuers and keys."""

    def __init__(self, verifier: JwtVerifier) -> None:
        self._verifier = verifier

    async def inspect(self, op: Op, token: str) -> TokenReading:
        """What every check says of ``token``. Never raises for what a token holds."""
        checks = _Checks()
        read = checks.find("reading", lambda: read_token(token))
        if read is None:
            return TokenReading(checks.listed(), *glimpse(token), None)
        checks.passed("reading", f"signed with {quoted(read.algorithm)}, kid {quoted(read.kid)}")
        settings = checks.find("issuer", lambda: find_issuer(read, self._verifier.issuers))
        if settings is None:
            return TokenReading(checks.listed(), read.header, read.claims, None)
        checks.passed("issuer", f"{settings.issuer} is trusted")
        if checks.holds("algorithm", lambda: check_algorithm(read, settings)):
            checks.passed("algorithm", f"{read.algorithm} is listed for this issuer")
            await self._check_signature(op, checks, read, settings)
        self._check_claims(op, checks, read, settings)
        principal = checks.find("claims", lambda: read_principal(read, settings, self._verifier.settings))
        if principal is not None:
            checks.passed("claims", "tenant, subject and groups can be read")
        return TokenReading(checks.listed(), read.header, read.claims, principal)

    async def _check_signature(self, op: Op, checks: _Checks, token: Token, settings: IssuerSettings) -> None:
        try:
            candidates, _ = await find_trusted_keys(op, token, self._verifier.sources[settings.issuer])
        except Refusal as refusal:
            checks.refused("key", refusal)
            return
        checks.passed("key", f"{settings.issuer} publishes it")
        if checks.holds("signature", lambda: check_signature(token, candidates)):
            checks.passed("signature", "made by that key")

    def _check_claims(self, op: Op, checks: _Checks, token: Token, settings: IssuerSettings) -> None:
        validity = checks.find("time", lambda: read_validity(token, settings))
        if validity is not None and checks.holds("time", lambda: check_time(validity, op.clock.unix_ns())):
            checks.passed("time", f"counts {spoken(validity)}, with {settings.leeway_s} s of leeway")
        if checks.holds("audience", lambda: check_audience(token, settings)):
            checks.passed("audience", f"meant for {quoted(token.claims.get('aud'))}")


class _Checks:
    """The results so far; what is never reached counts as unchecked."""

    def __init__(self) -> None:
        self._found: dict[str, TokenCheck] = {}

    def find(self, name: str, check: Callable[[], Found]) -> Found | None:
        """What the check yields; None when it refused, which is noted."""
        try:
            return check()
        except Refusal as refusal:
            self.refused(name, refusal)
            return None

    def holds(self, name: str, check: Callable[[], None]) -> bool:
        """Whether the check let the token pass; a refusal is noted."""
        self.find(name, check)
        return name not in self._found

    def passed(self, name: str, said: str) -> None:
        self._found[name] = TokenCheck(name, "passed", said)

    def refused(self, name: str, refusal: Refusal) -> None:
        result = "unchecked" if refusal.code == UNREACHABLE else "refused"
        said = f"{refusal.message} {refusal.detail}".strip()
        self._found[name] = TokenCheck(name, result, said, refusal.code)

    def listed(self) -> tuple[TokenCheck, ...]:
        return tuple(
            self._found.get(name) or TokenCheck(name, "unchecked", "needs the checks before it") for name in CHECKS
        )


def glimpse(text: str) -> tuple[JsonObject, JsonObject]:
    """Header and claims of a token that was refused as unreadable, as far as they can be made out all the same."""
    segments = text.split(".")[:2]
    found: list[JsonObject] = []
    for segment in segments:
        try:
            found.append(read_object(read_segment(segment, "segment"), "segment"))
        except Refusal:
            found.append({})
    header, claims = [*found, {}, {}][:2]
    return header, claims


def spoken(validity: Validity) -> str:
    """When a token counts, in UTC."""
    until = f"until {moment(validity.until_ns)}"
    return f"from {moment(validity.from_ns)} {until}" if validity.from_ns > 0 else until


def moment(unix_ns: int) -> str:
    """A time to the second; past the last year that a calendar holds, the year alone."""
    try:
        return f"{datetime.fromtimestamp(unix_ns // 1_000_000_000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):
        return "the year 10000"
