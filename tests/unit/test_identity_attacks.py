"""Attacks on the bytes of a token. Promise: what is not proved by a trusted key, in one spelling, names nobody."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shipworthy.adapters.identity.inspection import JwtInspector
from shipworthy.adapters.identity.keys import KeySet, read_key
from shipworthy.adapters.identity.reading import TOKEN_CHARS_MAX
from shipworthy.adapters.identity.settings import IdentitySettings, IssuerSettings
from shipworthy.adapters.identity.source import FixedKeys
from shipworthy.adapters.identity.verifier import JwtVerifier
from shipworthy.kit.clock import HandClock
from shipworthy.kit.signing import SigningKey, segment
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Principal
from shipworthy.model.op import Op

ISSUER = "https://login.example"
NOW = 1_800_000_000
ALL = ("RS256", "PS256", "ES256", "EdDSA")
KEYS = {algorithm: SigningKey(algorithm, f"kid-{algorithm}") for algorithm in ALL}  # type: ignore[arg-type]
RSA, EC, ED = KEYS["RS256"], KEYS["ES256"], KEYS["EdDSA"]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def claims(**more: object) -> dict[str, object]:
    said: dict[str, object] = {
        "iss": ISSUER,
        "aud": "shipworthy",
        "sub": "ada",
        "tenant": "northwind",
        "groups": ["agents"],
        "iat": NOW - 10,
        "exp": NOW + 3600,
    }
    said |= more
    return {name: value for name, value in said.items() if value is not None}


def verifier(*algorithms: str, keys: tuple[SigningKey, ...] = tuple(KEYS.values())) -> JwtVerifier:
    settings = IdentitySettings(
        issuers=(IssuerSettings(issuer=ISSUER, audiences=("shipworthy",), algorithms=algorithms or ALL),)
    )
    published = KeySet(tuple(read_key(key.published()) for key in keys))
    return JwtVerifier(settings, {ISSUER: FixedKeys(published)})


def operation(clock: HandClock | None = None) -> Op:
    return Op.for_request(clock or HandClock(NOW), lambda _: None)


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine that never has to wait: with fixed keys nothing is fetched."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited for something")


def verify(token: str, by: JwtVerifier | None = None) -> Principal:
    principal = drive((by or verifier()).verify(operation(), token))
    assert isinstance(principal, Principal)
    return principal


def refused(token: str, by: JwtVerifier | None = None) -> Refusal:
    """The refusal of ``token``; it gives nothing of the token away, and an explanation names the same rule."""
    by = by or verifier()
    with pytest.raises(Refusal) as caught:
        verify(token, by)
    refusal = caught.value
    for piece in token.split("."):
        assert len(piece) < 16 or piece not in refusal.detail + refusal.message + refusal.hint
    reading = drive(JwtInspector(by).inspect(operation(), token))
    explained = [check.code for check in reading.checks if check.result == "refused"]
    assert explained[0] == refusal.code
    signature = token.rpartition(".")[2]
    assert len(signature) < 16 or signature not in repr(reading)
    return refusal


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_good_token_names_its_principal(key: SigningKey) -> None:
    principal = verify(key.sign(claims()))
    assert (principal.tenant, principal.subject, principal.groups, principal.issuer) == (
        "northwind",
        "ada",
        ("agents",),
        ISSUER,
    )
    assert (principal.kind, principal.operator, principal.expires_at) == ("person", False, NOW + 3600)


def hmac_token(header: dict[str, object], secret: bytes, name: str = "sha256") -> str:
    signed = f"{segment(json.dumps(header).encode())}.{segment(json.dumps(claims()).encode())}"
    return f"{signed}.{segment(hmac.digest(secret, signed.encode(), name))}"


@pytest.mark.parametrize("name", ["HS256", "HS384", "HS512", "hs256", "RS256", "PS256"])
@pytest.mark.parametrize("form", ["pem", "der", "n", "jwk"])
def test_a_public_key_is_no_hmac_secret(name: str, form: str) -> None:
    """Algorithm confusion: the published key, in any spelling, used as a shared secret."""
    secrets = {
        "pem": RSA.private.as_pem(private=False),
        "der": RSA.private.as_der(private=False),
        "n": str(RSA.published()["n"]).encode(),
        "jwk": json.dumps(RSA.published()).encode(),
    }
    digest = {"HS384": "sha384", "HS512": "sha512"}.get(name, "sha256")
    code = refused(hmac_token({"alg": name, "kid": RSA.kid}, secrets[form], digest)).code
    assert code == ("identify.bad_signature" if name == "RS256" else "identify.algorithm_refused")


def test_the_other_way_a_key_of_one_algorithm_under_the_name_of_another() -> None:
    assert refused(RSA.sign(claims(), {"alg": "ES256"})).code == "identify.algorithm_refused"
    assert refused(EC.sign(claims(), {"alg": "EdDSA"})).code == "identify.algorithm_refused"
    assert refused(ED.sign(claims(), {"kid": RSA.kid})).code == "identify.algorithm_refused"
    assert refused(RSA.sign(claims(), {"kid": ED.kid, "alg": "EdDSA"})).code == "identify.bad_signature"
    assert refused(RSA.sign(claims(), {"alg": "PS256", "kid": "kid-PS256"})).code == "identify.bad_signature"


def test_the_issuers_list_decides_and_not_the_token() -> None:
    only = verifier("RS256")
    assert verify(RSA.sign(claims()), only).subject == "ada"
    for key in (EC, ED, KEYS["PS256"]):
        assert refused(key.sign(claims()), only).code == "identify.algorithm_refused"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS256 ", "RS256\x00", "rs256", "RS512", "ES384"])
@pytest.mark.parametrize("signature", ["", "AA", "kept"])
def test_unsigned_and_unlisted(name: str, signature: str) -> None:
    signed, _, made = RSA.sign(claims(), {"alg": name}).rpartition(".")
    assert refused(f"{signed}.{made if signature == 'kept' else signature}").code == "identify.algorithm_refused"


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": SigningKey("EdDSA", "evil").published()},
        {"jku": None, "JKU": 1, "crit": ["JKU"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"cty": "JWT"},
        {"cty": "json"},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"typ": "logout+jwt"},
        {"typ": "JWE"},
        {"typ": 1},
        {"typ": ["JWT"]},
        {"kid": 1},
        {"kid": ""},
        {"kid": ["kid-EdDSA"]},
        {"kid": {"a": 1}},
        {"kid": "x" * 257},
    ],
    ids=lambda header: "jwk" if "jwk" in header else str(header)[:60],  # a key is drawn anew in each process
)
def test_headers_that_move_the_choice_to_the_sender(header: dict[str, object]) -> None:
    assert refused(ED.sign(claims(), header)).code == "identify.malformed"


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "file:///etc/passwd",
        "kid-EdDSA\x00",
        "kid-EdDSA ",
        "KID-EDDSA",
        "' OR '1'='1",
        "https://evil.example/key",
        "kid-EdDSA\n",
        "%2e%2e%2f",
        "\u202ekid",
        "\ud800",
        "0",
    ],
)
def test_a_kid_is_a_name_and_nothing_else(kid: str) -> None:
    refusal = refused(ED.sign(claims(), {"kid": kid}))
    assert refusal.code == "identify.unknown_key"
    assert refusal.detail.isprintable() and refusal.detail.isascii()


def test_without_a_kid_only_the_single_key_that_fits_counts() -> None:
    anonymous = SigningKey("EdDSA", None)
    assert verify(anonymous.sign(claims()), verifier(keys=(anonymous, RSA))).subject == "ada"
    both = verifier(keys=(anonymous, ED))
    assert refused(anonymous.sign(claims()), both).code == "identify.unknown_key"
    assert refused(anonymous.sign(claims()), verifier(keys=(RSA,))).code == "identify.unknown_key"
    assert refused(anonymous.sign(claims(), {"kid": "x"}), verifier(keys=(anonymous,))).code == "identify.unknown_key"


def raw(key: SigningKey, *numbers: int, order: str = "big") -> str:
    signed = key.sign(claims()).rpartition(".")[0]
    return f"{signed}.{segment(b''.join(n.to_bytes(32, order) for n in numbers))}"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "numbers",
    [(0, 0), (1, 0), (0, 1), (1, 1), (P256_ORDER, P256_ORDER), (P256_ORDER, 1), (P256_ORDER - 1, 1), (2**256 - 1,) * 2],
    ids=str,
)
def test_psychic_signatures(numbers: tuple[int, ...]) -> None:
    """r = s = 0 and its relatives (CVE-2022-21449)."""
    assert refused(raw(EC, *numbers)).code == "identify.bad_signature"


@pytest.mark.parametrize("length", [0, 1, 31, 32, 63, 65, 70, 71, 72, 96, 128, 512])
def test_signatures_of_the_wrong_length(length: int) -> None:
    for key in KEYS.values():
        signed = key.sign(claims()).rpartition(".")[0]
        assert refused(f"{signed}.{segment(b'0' * length)}").code == "identify.bad_signature"


def test_a_der_encoded_signature_is_another_spelling() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    signed, _, tail = EC.sign(claims()).rpartition(".")
    sig = base64.urlsafe_b64decode(tail + "==")
    der = encode_dss_signature(int.from_bytes(sig[:32]), int.from_bytes(sig[32:]))
    assert refused(f"{signed}.{segment(der)}").code == "identify.bad_signature"


def test_an_ed25519_signature_cannot_be_restated() -> None:
    """S + L verifies under a careless equation; RFC 8032 §5.1.7 demands S < L."""
    signed, _, tail = ED.sign(claims()).rpartition(".")
    sig = base64.urlsafe_b64decode(tail + "==")
    s = int.from_bytes(sig[32:], "little") + ED25519_ORDER
    assert refused(f"{signed}.{segment(sig[:32] + s.to_bytes(32, 'little'))}").code == "identify.bad_signature"
    assert refused(f"{signed}.{segment(bytes(64))}").code == "identify.bad_signature"


def test_an_ecdsa_signature_restated_names_the_same_principal() -> None:
    """ECDSA is malleable by nature (n - s): harmless here, because nothing is keyed by the signature but the cache."""
    signed, _, tail = EC.sign(claims()).rpartition(".")
    sig = base64.urlsafe_b64decode(tail + "==")
    other = sig[:32] + (P256_ORDER - int.from_bytes(sig[32:])).to_bytes(32)
    by = verifier()
    assert verify(f"{signed}.{tail}", by) == verify(f"{signed}.{segment(other)}", by)


def test_another_keys_signature_under_a_trusted_kid() -> None:
    evil = SigningKey("EdDSA", ED.kid)
    assert refused(evil.sign(claims())).code == "identify.bad_signature"


def test_every_changed_letter_is_noticed() -> None:
    token = ED.sign(claims())
    by = verifier()
    for at in range(0, len(token), 7):
        other = "A" if token[at] != "A" else "B"
        with pytest.raises(Refusal):
            verify(token[:at] + other + token[at + 1 :], by)


def test_claims_swapped_under_a_signature() -> None:
    head, _, tail = ED.sign(claims()).split(".")
    forged = segment(json.dumps(claims(tenant="other")).encode())
    assert refused(f"{head}.{forged}.{tail}").code == "identify.bad_signature"


def test_truncated_anywhere() -> None:
    token = ED.sign(claims())
    by = verifier()
    for length in range(0, len(token), 11):
        with pytest.raises(Refusal):
            verify(token[:length], by)


NO_TOKENS = """
.|..|...|....|.....|a.b|a.b.c|e30.e30.|e30..e30|null.null.null|\x00|é|\ud800.a.b|eyJ hbGciOiJub25lIn0.e30.|W10.e30.AA
MQ.e30.AA|bnVsbA.e30.AA
""".strip().replace("\n", "|")


@pytest.mark.parametrize(
    "token",
    ["", *NO_TOKENS.split("|"), "a" * TOKEN_CHARS_MAX, "a" * (TOKEN_CHARS_MAX + 1), "." * 100_000],
    ids=lambda token: f"{token[:12]!a}+{len(token)}",
)
def test_no_token_at_all(token: str) -> None:
    assert refused(token).code in ("identify.malformed", "identify.algorithm_refused")


def test_an_encrypted_token_is_named() -> None:
    assert "JWE" in refused("eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d").detail


def test_an_oversized_token_is_not_even_read() -> None:
    assert f"at most {TOKEN_CHARS_MAX}" in refused(ED.sign(claims(padding="x" * TOKEN_CHARS_MAX))).detail


def spoiled(change: Callable[[str], str], which: int) -> str:
    pieces = ED.sign(claims()).split(".")
    pieces[which] = change(pieces[which])
    return ".".join(pieces)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["header", "claims", "signature"])
@pytest.mark.parametrize(
    "change",
    [
        lambda s: s + "=",
        lambda s: s + "==",
        lambda s: s + "\n",
        lambda s: " " + s,
        lambda s: s[:4] + "+" + s[5:],
        lambda s: s[:4] + "/" + s[5:],
        lambda s: s[:4] + "\u0430" + s[5:],
        lambda s: s + "A" * (5 - len(s) % 4),
    ],
    ids=["=", "==", "newline", "space", "+", "/", "cyrillic", "length"],
)
def test_base64url_has_one_spelling(change: Callable[[str], str], which: int) -> None:
    assert refused(spoiled(change, which)).code == "identify.malformed"


def test_spare_bits_in_base64url_are_refused() -> None:
    """The last letter of a 64-byte signature carries four spare bits: 16 spellings, one of them canonical."""
    token = ED.sign(claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    for spare in range(1, 16):
        assert refused(token[:-1] + alphabet[last ^ spare]).code == "identify.malformed"


GOOD_HEADER = json.dumps({"alg": "EdDSA", "kid": ED.kid}).encode()


def body(**more: str) -> bytes:
    """Claims as raw JSON members, laid over good ones."""
    members = {name: json.dumps(value) for name, value in claims().items()} | more
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode()


@pytest.mark.parametrize(
    "payload",
    [
        body()[:-1] + b',"tenant":"other"}',
        body()[:-1] + b',"t\\u0065nant":"other"}',
        body(deep='{"a":{"b":1,"b":2}}'),
        body(list='[{"a":1,"a":1}]'),
        body(exp="NaN"),
        body(exp="Infinity"),
        body(exp="-Infinity"),
        body(exp="1e999"),
        body(exp="-1e999"),
        body(exp="9" * 5000),
        body(deep="[" * 4000 + "]" * 4000),
        body(deep='{"a":' * 1500 + "1" + "}" * 1500),
        b"\xef\xbb\xbf" + body(),
        body() + b"{}",
        body() + b"\x00",
        body(sub='"a\x00b"'),
        b"\xff\xfe" + body(),
        body().replace(b"ada", b"\xff\xff"),
        body().replace(b"ada", b"\xed\xa0\x80"),
        b"[]",
        b"null",
        b'"text"',
        b"",
        b"{",
        b"{'iss': 1}",
        b'{"iss": "x",}',
    ],
    ids=lambda payload: f"{payload[-30:]!a}",
)
def test_json_that_readers_disagree_on(payload: bytes) -> None:
    assert refused(ED.sign_bytes(GOOD_HEADER, payload)).code == "identify.malformed"


def test_duplicate_keys_in_the_header() -> None:
    header = GOOD_HEADER[:-1] + b',"alg":"none"}'
    assert refused(ED.sign_bytes(header, body())).code == "identify.malformed"


@pytest.mark.parametrize(
    ("issuer", "code"),
    [
        (None, "identify.missing_claim"),
        (1, "identify.missing_claim"),
        ("", "identify.missing_claim"),
        ([ISSUER], "identify.missing_claim"),
        (ISSUER + "/", "identify.unknown_issuer"),
        (ISSUER.upper(), "identify.unknown_issuer"),
        (ISSUER + "\x00", "identify.unknown_issuer"),
        ("https://login.example.evil.example", "identify.unknown_issuer"),
        ("https://lоgin.example", "identify.unknown_issuer"),
    ],
)
def test_the_issuer_is_compared_letter_by_letter(issuer: object, code: str) -> None:
    refusal = refused(ED.sign(claims(iss=issuer)))
    assert refusal.code == code
    assert refusal.detail.isascii() and refusal.detail.isprintable()


def test_one_issuers_key_does_not_sign_for_another() -> None:
    other = SigningKey("EdDSA", "other")
    issuers = tuple(
        IssuerSettings(issuer=name, audiences=("shipworthy",), algorithms=ALL)
        for name in (ISSUER, "https://other.example")
    )
    sources = {
        ISSUER: FixedKeys(KeySet((read_key(ED.published()),))),
        "https://other.example": FixedKeys(KeySet((read_key(other.published()),))),
    }
    by = JwtVerifier(IdentitySettings(issuers=issuers), sources)
    assert verify(ED.sign(claims()), by).issuer == ISSUER
    assert verify(other.sign(claims(iss="https://other.example")), by).issuer == "https://other.example"
    assert refused(other.sign(claims()), by).code == "identify.unknown_key"
    assert refused(ED.sign(claims(iss="https://other.example")), by).code == "identify.unknown_key"
