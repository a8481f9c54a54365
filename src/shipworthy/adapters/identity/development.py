"""The development issuer: a key pair of this deployment's own, so that a newcomer has tokens before an identity provider.

Whoever can read the file can sign anyone in, so it is made for its owner alone and refused when others can read it. In an
environment called production a deployment that trusts it does not start unless that was asked for by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from shipworthy.adapters.identity.keys import KeySet, VerifyingKey, read_key
from shipworthy.adapters.identity.settings import ClaimNames, IssuerSettings
from shipworthy.adapters.identity.source import FixedKeys
from shipworthy.model.errors import StartRefused
from shipworthy.ports import TokenWish

FILE_NAME = "development-issuer.json"
FILE_BYTES_MAX = 4096
AUDIENCE = "shipworthy"
PRODUCTION = frozenset({"production", "prod", "live"})
ALGORITHM = "EdDSA"


class DevelopmentIssuer:
    """Signs tokens for one deployment and trusts its own key. ``trusted`` is what ``Issuers.adopt`` wants to know of it."""

    def __init__(self, deployment: str, key: OKPKey) -> None:
        published: VerifyingKey = read_key(key.as_dict(private=False, kid=key.thumbprint()))
        self._key = key
        self._kid = key.thumbprint()
        self.settings = IssuerSettings(
            issuer=issuer_name(deployment),
            audiences=(AUDIENCE,),
            algorithms=(ALGORITHM,),
            claims=ClaimNames(),
        )
        self.keys = FixedKeys(KeySet((published,)))

    @property
    def trusted(self) -> tuple[IssuerSettings, FixedKeys]:
        return self.settings, self.keys

    def mint(self, wish: TokenWish, id: UUID, now_unix_ns: int) -> str:
        """A token that says what was wished, from now on for ``ttl_s`` seconds."""
        now_s = now_unix_ns // 1_000_000_000
        claims: dict[str, object] = {
            "iss": self.settings.issuer,
            "aud": AUDIENCE,
            "sub": wish.subject,
            "tenant": wish.tenant,
            "groups": list(wish.groups),
            "iat": now_s,
            "exp": now_s + wish.ttl_s,
            "jti": str(id),
        }
        if wish.clearance:
            claims["clearance"] = wish.clearance
        if wish.actor:
            claims["act"] = {"sub": wish.actor}
        return self._sign({"alg": ALGORITHM, "kid": self._kid, "typ": "JWT"}, claims)

    def _sign(self, header: Mapping[str, object], claims: Mapping[str, object]) -> str:
        signed = b".".join(_segment(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        signature = JWSRegistry.algorithms[ALGORITHM].sign(signed, self._key)
        return b".".join((signed, _segment(signature))).decode()


def issuer_name(deployment: str) -> str:
    return f"urn:shipworthy:development:{deployment}"


def open_development_issuer(
    directory: Path, deployment: str, environment: str, *, in_production: bool = False
) -> DevelopmentIssuer:
    """The issuer whose key stands in ``directory``, made at the first call. Raises StartRefused.

    ``in_production`` is the manifest's word that it wants the issuer in production all the same.
    """
    if environment.lower() in PRODUCTION and not in_production:
        raise StartRefused(
            "identity.development_issuer",
            f"identity.development_issuer is on, and the environment is {environment}",
            "turn it off: whoever reads its key file can sign anyone in; or name the environment what it is",
        )
    path = directory / FILE_NAME
    if not path.exists():
        _create(path)
    return DevelopmentIssuer(deployment, _load(path))


def _create(path: Path) -> None:
    """Writes a new key for its owner alone. Of several processes that try at once one wins, and all read the winner's."""
    draft = path.with_name(f".{FILE_NAME}.{secrets.token_hex(8)}")
    text = json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as reason:
        hint = "check the directory's owner and free space"
        raise _unusable(path, f"cannot be written: {reason.strerror}", hint) from reason


def _load(path: Path) -> OKPKey:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(FILE_BYTES_MAX)
    except OSError as reason:
        raise _unusable(path, f"cannot be read: {reason.strerror}", "run as the account that made it") from reason
    if mode & 0o077:
        raise _unusable(
            path, f"can be read by others (mode {mode:o})", f"chmod 600 {path}, or delete it to get a new key"
        )
    try:
        key = OKPKey.import_key(json.loads(text))
    except (ValueError, TypeError, KeyError, JoseError) as reason:
        raise _unusable(path, "holds no key", "delete it: a new one is made, and old tokens end") from reason
    if not key.is_private or key.curve_name != "Ed25519":
        raise _unusable(path, "holds no private Ed25519 key", "delete it: a new one is made, and old tokens end")
    return key


def _unusable(path: Path, said: str, hint: str) -> StartRefused:
    return StartRefused("identity.development_issuer", f"the development issuer's key file {path} {said}", hint)


def _segment(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
