"""An issuer's published keys (RFC 7517), reduced to those that may verify a signature here.

Which algorithms a key may serve follows from the key, never from a token: an RSA key cannot be an HMAC secret because no
symmetric key is ever taken in, and a key for ES256 stands on P-256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import Struct

from shipworthy.adapters.identity.reading import KID_CHARS_MAX, JsonObject, quoted, read_object, read_segment
from shipworthy.model.errors import Refusal

KEYS_MAX = 100
SAME_KID_MAX = 4
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
RSA_EXPONENT_MIN = 3
RSA_EXPONENT_MAX = 2**32 - 1

PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")

PublicKey = RSAKey | ECKey | OKPKey


class KeysInvalid(Exception):
    """The issuer's answer is not a set of keys."""


class Unusable(Exception):
    """A published key that may not verify a signature here, and why."""


class VerifyingKey(Struct, frozen=True):
    """One public key and the algorithms that it may serve. ``thumbprint`` is RFC 7638's: the same key has the same."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey
    thumbprint: str

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether this key made ``signature`` over ``signed``."""
        assert algorithm in self.algorithms, "the algorithm must fit the key before it is tried"
        try:
            return JWSRegistry.algorithms[algorithm].verify(signed, signature, self.public)
        except (ValueError, JoseError):  # a signature that the library cannot even take apart
            return False


class KeySet(Struct, frozen=True):
    """The usable keys of one issuer at one moment. ``left`` says which published ones are not, and why."""

    keys: tuple[VerifyingKey, ...]
    left: tuple[str, ...] = ()

    def trusts_the_same(self, other: KeySet) -> bool:
        """Whether both trust exactly the same keys for the same algorithms, in whatever order they are published."""
        return self._trusted() == other._trusted()

    def _trusted(self) -> frozenset[tuple[str | None, frozenset[str], str]]:
        return frozenset((key.kid, key.algorithms, key.thumbprint) for key in self.keys)

    def fitting(self, kid: str | None, algorithm: str) -> tuple[VerifyingKey, ...]:
        """The keys that may have signed: those named by ``kid``; without a kid, every one that fits."""
        return tuple(key for key in self.keys if algorithm in key.algorithms and (kid is None or key.kid == kid))


def read_keys(document: bytes) -> KeySet:
    """The keys that a JWKS document publishes. Raises KeysInvalid when it is none."""
    try:
        listed = read_object(document, "JWKS").get("keys")
    except Refusal as refusal:
        raise KeysInvalid(refusal.detail) from refusal
    if not isinstance(listed, list):
        raise KeysInvalid("the JWKS has no list of keys")
    if len(listed) > KEYS_MAX:
        raise KeysInvalid(f"the JWKS has {len(listed)} keys, at most {KEYS_MAX} are read")
    keys: list[VerifyingKey] = []
    left: list[str] = []
    for number, member in enumerate(listed):
        try:
            keys.append(read_key(member, keys))
        except Unusable as unusable:
            kid = member.get("kid") if isinstance(member, dict) else None
            left.append(f"key {number} (kid {quoted(kid)}): {unusable}")
    return KeySet(tuple(keys), tuple(left))


def read_key(member: object, others: Sequence[VerifyingKey] = ()) -> VerifyingKey:
    """The verifying key that one member of a JWKS publishes. Raises Unusable."""
    if not isinstance(member, dict):
        raise Unusable("it is not an object")
    kid = member.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= KID_CHARS_MAX):
        raise Unusable("its kid is not a text")
    if kid is not None and sum(other.kid == kid for other in others) >= SAME_KID_MAX:
        raise Unusable(f"more than {SAME_KID_MAX} keys have its kid")
    check_purpose(member)
    public, algorithms = import_public(member)
    stated = member.get("alg")
    if stated is not None:
        algorithms &= frozenset([stated]) if isinstance(stated, str) else frozenset()
    if not algorithms:
        raise Unusable(f"its alg {quoted(stated)} does not fit it or is not supported")
    return VerifyingKey(kid, algorithms, public, public.thumbprint())


def check_purpose(member: JsonObject) -> None:
    """Refuses keys that are not for signatures, or whose private half is published too."""
    if member.get("kty") == "oct":
        raise Unusable("it is symmetric: whoever can verify could sign")
    if any(name in member for name in PRIVATE_MEMBERS):
        raise Unusable("its private half is published")
    if member.get("use", "sig") != "sig":
        raise Unusable(f"its use is {quoted(member.get('use'))}, not sig")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise Unusable("its key_ops do not hold verify")


def import_public(member: JsonObject) -> tuple[PublicKey, frozenset[str]]:
    """The public key and the algorithms that its type, curve and size allow."""
    match member.get("kty"), member.get("crv"):
        case "RSA", None:
            check_rsa(member)
            return _import(RSAKey, member, ("kty", "n", "e")), frozenset({"RS256", "PS256"})
        case "EC", "P-256":
            return _import(ECKey, member, ("kty", "crv", "x", "y")), frozenset({"ES256"})
        case "OKP", "Ed25519":
            return _import(OKPKey, member, ("kty", "crv", "x")), frozenset({"EdDSA"})
        case kind, curve:
            raise Unusable(f"its type {quoted(kind)}, curve {quoted(curve)} is not supported")


def check_rsa(member: JsonObject) -> None:
    modulus, exponent = (int.from_bytes(_segment(member, name)) for name in ("n", "e"))
    if not RSA_BITS_MIN <= modulus.bit_length() <= RSA_BITS_MAX:
        raise Unusable(f"it has {modulus.bit_length()} bits, {RSA_BITS_MIN} to {RSA_BITS_MAX} are taken")
    if not RSA_EXPONENT_MIN <= exponent <= RSA_EXPONENT_MAX or exponent % 2 == 0:
        raise Unusable("its exponent is out of range")


def _import(kind: type[RSAKey] | type[ECKey] | type[OKPKey], member: JsonObject, names: tuple[str, ...]) -> PublicKey:
    """Only the members that make the key are handed on: the library has no say in kid, use, alg and the rest."""
    values = {name: _text(member, name) for name in names}
    try:
        return kind.import_key(dict(values))
    except (ValueError, TypeError, KeyError, JoseError) as reason:
        raise Unusable(f"it is not a valid key ({type(reason).__name__})") from reason


def _segment(member: JsonObject, name: str) -> bytes:
    try:
        return read_segment(_text(member, name), name)
    except Refusal as refusal:
        raise Unusable(refusal.detail) from refusal


def _text(member: Mapping[str, object], name: str) -> str:
    value = member.get(name)
    if not isinstance(value, str) or not value:
        raise Unusable(f"its {name} is not a text")
    return value
