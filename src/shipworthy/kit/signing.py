"""Signing keys for tests: real keys of every algorithm, and tokens that say whatever a test wants, well-formed or not."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Literal

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA"]


class SigningKey:
    """A private key with its kid. ``published`` is what its issuer's JWKS says of it."""

    def __init__(self, algorithm: Algorithm, kid: str | None, *, rsa_bits: int = 2048) -> None:
        self.algorithm: Algorithm = algorithm
        self.kid = kid
        self.private: RSAKey | ECKey | OKPKey
        if algorithm == "ES256":
            self.private = ECKey.generate_key("P-256")
        elif algorithm == "EdDSA":
            self.private = OKPKey.generate_key("Ed25519")
        else:
            self.private = RSAKey.generate_key(rsa_bits)

    def published(self, **more: object) -> dict[str, object]:
        """The public JWK. ``more`` overrides members; a member that is None is left out."""
        members: dict[str, object] = {"use": "sig", "alg": self.algorithm, "kid": self.kid}
        members |= self.private.as_dict(private=False)
        members |= more
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, claims: Mapping[str, object], header: Mapping[str, object] | None = None) -> str:
        """A compact token. ``header`` overrides alg, kid and typ; a member that is None is left out."""
        members: dict[str, object] = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT"}
        members |= header or {}
        spoken = {name: value for name, value in members.items() if value is not None}
        return self.sign_bytes(json.dumps(spoken).encode(), json.dumps(claims).encode())

    def sign_bytes(self, header: bytes, payload: bytes) -> str:
        """A token over exactly these bytes, whatever they are."""
        signed = f"{segment(header)}.{segment(payload)}"
        signature = JWSRegistry.algorithms[self.algorithm].sign(signed.encode(), self.private)
        return f"{signed}.{segment(signature)}"


def segment(data: bytes) -> str:
    """``data`` in base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
