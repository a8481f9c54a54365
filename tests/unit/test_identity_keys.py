"""Which published keys may verify a signature: by type, size, purpose, and never by what a token says."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from shipworthy.adapters.identity.keys import KEYS_MAX, KeySet, KeysInvalid, Unusable, read_key, read_keys
from shipworthy.kit.signing import SigningKey, segment

RSA = SigningKey("RS256", "rsa")
EC = SigningKey("ES256", "ec")
ED = SigningKey("EdDSA", "ed")


def weak() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SigningKey("RS256", "weak", rsa_bits=1024).published()


WEAK = weak()


def test_each_key_serves_what_its_type_allows() -> None:
    assert read_key(RSA.published(alg=None)).algorithms == {"RS256", "PS256"}
    assert read_key(RSA.published()).algorithms == {"RS256"}
    assert read_key(EC.published(alg=None)).algorithms == {"ES256"}
    assert read_key(ED.published(alg=None, use=None, kid=None)).algorithms == {"EdDSA"}


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (WEAK, "1024 bits"),
        (RSA.published(use="enc"), "use"),
        (RSA.published(use=1), "use"),
        (RSA.published(key_ops=["encrypt"]), "key_ops"),
        (RSA.published(key_ops="verify!"), "key_ops"),
        (RSA.published(alg="HS256"), "alg"),
        (RSA.published(alg="ES256"), "alg"),
        (RSA.published(alg="RSA-OAEP"), "alg"),
        (RSA.published(alg=["RS256"]), "alg"),
        (RSA.published(kid=7), "kid"),
        (RSA.published(kid=""), "kid"),
        (RSA.published(kid="x" * 257), "kid"),
        (RSA.published(d="AQAB"), "private"),
        (RSA.published(kty="EC"), "type"),
        (RSA.published(kty=None), "type"),
        (RSA.published(kty=["RSA"]), "type"),
        (RSA.published(crv="P-256"), "type"),
        (RSA.published(n=None), "n is not a text"),
        (RSA.published(n=5), "n is not a text"),
        (RSA.published(n="!!"), "base64url"),
        (RSA.published(n=str(RSA.published()["n"]) + "="), "base64url"),
        (RSA.published(n=segment(b"\xff" * 1025)), "8200 bits"),
        (RSA.published(e=segment(b"\x01")), "exponent"),
        (RSA.published(e=segment(b"\x02")), "exponent"),
        (RSA.published(e=segment(b"\x01" * 9)), "exponent"),
        ({"kty": "oct", "k": segment(b"secret"), "kid": "s"}, "symmetric"),
        ({"kty": "oct", "kid": "s"}, "symmetric"),
        (EC.published(crv="P-384"), "curve"),
        (EC.published(crv="secp256k1"), "curve"),
        (EC.published(x=segment(bytes(32))), "not a valid key"),
        (EC.published(y=EC.published()["x"]), "not a valid key"),
        (ED.published(crv="Ed448"), "curve"),
        (ED.published(crv="X25519"), "curve"),
        (ED.published(x=segment(b"short")), "not a valid key"),
        (ED.published(x="é"), "not a valid key"),
        ("text", "object"),
        (None, "object"),
        ([], "object"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_keys_that_may_not_verify(member: Any, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        read_key(member)


def test_one_bad_key_does_not_spoil_the_others() -> None:
    found = read_keys(
        json.dumps({"keys": [WEAK, RSA.published(), {"kty": "oct", "k": "AA", "kid": "o"}, None]}).encode()
    )
    assert [key.kid for key in found.keys] == ["rsa"]
    assert len(found.left) == 3
    assert "kid 'weak'" in found.left[0]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [], "keys": []}',
        b"\xff\xfe",
        b'{"keys": ' + b"[" * 100_000,
        json.dumps({"keys": [{}] * (KEYS_MAX + 1)}).encode(),
    ],
    ids=lambda document: f"{document[:20]!a}",
)
def test_documents_that_are_no_key_set(document: bytes) -> None:
    with pytest.raises(KeysInvalid):
        read_keys(document)


def test_an_empty_set_trusts_nothing_and_is_one() -> None:
    """An issuer that withdraws every key means it."""
    assert read_keys(b'{"keys": []}').keys == ()


def test_the_same_keys_in_another_order_are_the_same_set() -> None:
    one = KeySet((read_key(RSA.published()), read_key(ED.published())))
    other = KeySet((read_key(ED.published()), read_key(RSA.published())))
    assert one.trusts_the_same(other)
    assert not one.trusts_the_same(KeySet((read_key(RSA.published()),)))
    assert not one.trusts_the_same(KeySet((read_key(ED.published(kid="x")), read_key(RSA.published()))))


def test_keys_that_share_a_kid_are_told_apart_by_their_algorithm() -> None:
    both = read_keys(json.dumps({"keys": [RSA.published(kid="k"), EC.published(kid="k")]}).encode())
    assert [key.algorithms for key in both.fitting("k", "ES256")] == [{"ES256"}]
    many = read_keys(json.dumps({"keys": [SigningKey("EdDSA", "k").published() for _ in range(6)]}).encode())
    assert len(many.fitting("k", "EdDSA")) == 4
