"""Verifies signed tokens for requests: once in full, then from a cache until anything that the verdict rested on changes."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from msgspec import Struct

from shipworthy.adapters.identity.checks import (
    Validity,
    check_algorithm,
    check_audience,
    check_signature,
    check_time,
    find_issuer,
    find_keys,
    read_principal,
    read_validity,
    unknown_key,
)
from shipworthy.adapters.identity.keys import KeySet, VerifyingKey
from shipworthy.adapters.identity.reading import TOKEN_CHARS_MAX, Token, malformed, read_token
from shipworthy.adapters.identity.settings import IdentitySettings
from shipworthy.adapters.identity.source import KeySource
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Principal
from shipworthy.model.op import Op

VERDICTS_MAX = 10_000


class Verdict(Struct, frozen=True):
    """A verified token, and all that the verification rested on."""

    principal: Principal
    from_ns: int
    until_ns: int
    source: KeySource
    keys: KeySet


class JwtVerifier:
    """The TokenVerifier of one snapshot: its issuers, operators and claims. Key sources are shared between snapshots."""

    def __init__(self, settings: IdentitySettings, sources: Mapping[str, KeySource]) -> None:
        self.settings = settings
        self.issuers = {issuer.issuer: issuer for issuer in settings.issuers}
        self.sources = {name: sources[name] for name in self.issuers}
        self._verdicts: dict[bytes, Verdict] = {}

    async def verify(self, op: Op, token: str) -> Principal:
        """The principal that a signed token proves. Raises Refusal identify.*; without a tenant only for an operator."""
        if len(token) > TOKEN_CHARS_MAX:
            raise malformed(f"{len(token)} characters, at most {TOKEN_CHARS_MAX} are read")
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        verdict = self._verdicts.get(digest)
        if (
            verdict is not None
            and verdict.source.keys is verdict.keys
            and verdict.from_ns <= op.clock.unix_ns() < verdict.until_ns
            and op.clock.monotonic_ns() < verdict.source.good_until_ns
        ):
            return verdict.principal
        return await self._verify_anew(op, token, digest)

    async def _verify_anew(self, op: Op, text: str, digest: bytes) -> Principal:
        token = read_token(text)
        settings = find_issuer(token, self.issuers)
        check_algorithm(token, settings)
        source = self.sources[settings.issuer]
        candidates, keys = await find_trusted_keys(op, token, source)
        check_signature(token, candidates)
        validity = read_validity(token, settings)
        check_time(validity, op.clock.unix_ns())
        check_audience(token, settings)
        principal = read_principal(token, settings, self.settings)
        self._keep(digest, principal, validity, source, keys)
        return principal

    def _keep(self, digest: bytes, principal: Principal, validity: Validity, source: KeySource, keys: KeySet) -> None:
        """Only verified tokens come here, so nobody without a signature can push another's verdict out."""
        self._verdicts.pop(digest, None)
        while len(self._verdicts) >= VERDICTS_MAX:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[digest] = Verdict(principal, validity.from_ns, validity.until_ns, source, keys)


async def find_trusted_keys(op: Op, token: Token, source: KeySource) -> tuple[tuple[VerifyingKey, ...], KeySet]:
    """The published keys that may have signed, after seeking them once if they are not at hand."""
    keys = usable(op, source)
    if keys is not None and (found := find_keys(token, keys)):
        return found, keys
    await source.seek()
    keys = usable(op, source)
    if keys is None:
        raise unavailable(source)
    if found := find_keys(token, keys):
        return found, keys
    if source.reason:  # the key may be a new one that could not be fetched: nobody can say that it is unknown
        raise unavailable(source)
    raise unknown_key(token, keys)


def usable(op: Op, source: KeySource) -> KeySet | None:
    """The source's keys, unless they are older than an outage may last."""
    return source.keys if op.clock.monotonic_ns() < source.good_until_ns else None


def unavailable(source: KeySource) -> Refusal:
    return Refusal("identify.issuer_unavailable", detail=source.reason or "its keys are too old", retry_after_s=5)
