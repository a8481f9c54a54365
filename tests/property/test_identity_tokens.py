"""No bytes raise anything but a Refusal, and nobody is named without a trusted key's signature."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shipworthy.adapters.identity.inspection import JwtInspector
from shipworthy.adapters.identity.keys import KeySet, KeysInvalid, read_key, read_keys
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
KEYS = tuple(SigningKey(name, name) for name in ("RS256", "ES256", "EdDSA"))  # type: ignore[arg-type]
VERIFIER = JwtVerifier(
    IdentitySettings(
        issuers=(IssuerSettings(issuer=ISSUER, audiences=("shipworthy",), algorithms=("RS256", "ES256", "EdDSA")),),
        operator_groups=frozenset({"ops"}),
    ),
    {ISSUER: FixedKeys(KeySet(tuple(read_key(key.published()) for key in KEYS)))},
)
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "shipworthy",
    "sub": "ada",
    "tenant": "northwind",
    "groups": ["a"],
    "exp": NOW + 60,
}

numbers = st.integers() | st.floats() | st.integers(NOW - 100, NOW + 100)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text() | st.sampled_from(["northwind", "shipworthy", ISSUER]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(["iss", "aud", "sub", "tenant", "groups", "clearance", "exp", "nbf", "iat", "act", "azp"])
headers = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "cty", "crit", "jku", "jwk", "x5u", "b64", "enc", "x5c", "x5t"]),
    values,
    max_size=4,
)


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited for something")


def verify(token: str) -> Principal | Refusal:
    """Whom the token names, or its refusal. Anything else that is raised fails; so does an explanation that differs."""
    op = Op.for_request(HandClock(NOW), lambda _: None)
    try:
        result: Principal | Refusal = drive(VERIFIER.verify(op, token))
    except Refusal as refusal:
        result = refusal
    reading = drive(JwtInspector(VERIFIER).inspect(op, token))
    refused = [check.code for check in reading.checks if check.result == "refused"]
    if isinstance(result, Refusal):
        assert result.message and result.hint
        assert refused[0] == result.code
    else:
        assert not refused and reading.principal == result
    return result


@given(st.text(alphabet=st.characters(), max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text(token: str) -> None:
    assert isinstance(verify(token), Refusal)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=80))
def test_any_bytes_in_three_segments(header: bytes, payload: bytes, signature: bytes) -> None:
    assert isinstance(verify(f"{segment(header)}.{segment(payload)}.{segment(signature)}"), Refusal)


@given(headers, st.dictionaries(names, values, max_size=6), st.binary(max_size=300))
def test_any_header_and_claims_without_a_signature(
    header: dict[str, Any], claims: dict[str, Any], signature: bytes
) -> None:
    pieces = (json.dumps({"alg": "EdDSA", "kid": "EdDSA"} | header), json.dumps(GOOD | claims))
    token = ".".join([*(segment(piece.encode()) for piece in pieces), segment(signature)])
    assert isinstance(verify(token), Refusal)


@settings(deadline=None)
@given(st.sampled_from(KEYS), headers, st.dictionaries(names, values, max_size=6))
def test_any_claims_under_a_good_signature(key: SigningKey, header: dict[str, Any], claims: dict[str, Any]) -> None:
    """A principal that comes out is well-formed, whatever its issuer wrote."""
    result = verify(key.sign(GOOD | claims, header))
    if isinstance(result, Principal):
        said = [result.tenant, result.subject, *result.groups]
        assert all(0 < len(name) <= 256 and name.isprintable() for name in said)
        assert all(name.encode() for name in said)
        assert result.issuer == ISSUER and result.expires_at > NOW - 30 and not result.key_id


@settings(deadline=None)
@given(st.sampled_from(KEYS), st.binary(max_size=200))
def test_any_bytes_under_a_good_signature(key: SigningKey, payload: bytes) -> None:
    header = json.dumps({"alg": key.algorithm, "kid": key.kid}).encode()
    assert isinstance(verify(key.sign_bytes(header, payload)), Refusal)


@settings(deadline=None)
@given(st.sampled_from(KEYS), st.data())
def test_any_change_of_a_good_token(key: SigningKey, data: st.DataObject) -> None:
    token = key.sign(GOOD)
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters().filter(lambda letter: letter != token[at]))
    assert isinstance(verify(token[:at] + letter + token[at + 1 :]), Refusal)


@given(st.binary(max_size=200) | st.dictionaries(st.just("keys"), values).map(lambda said: json.dumps(said).encode()))
def test_any_key_set(document: bytes) -> None:
    try:
        found = read_keys(document)
    except KeysInvalid:
        return
    assert found.keys == ()


@settings(deadline=None)
@given(
    st.sampled_from(KEYS),
    st.dictionaries(
        st.sampled_from(["kty", "n", "e", "crv", "x", "y", "use", "alg", "kid", "key_ops", "d"]), values, max_size=3
    ),
)
def test_any_change_of_a_published_key(key: SigningKey, change: dict[str, Any]) -> None:
    """A published key may be garbled in any way: it is left out or still the same key, and nothing else is raised."""
    document = json.dumps({"keys": [key.published() | change]})
    assume("NaN" not in document and "Infinity" not in document)  # not JSON, so no key set at all
    found = read_keys(document.encode())
    assert len(found.keys) + len(found.left) == 1
    for usable in found.keys:
        assert usable.algorithms <= {"RS256", "PS256", "ES256", "EdDSA"}


def test_the_good_token_is_good() -> None:
    """Else every test above would pass for the wrong reason."""
    assert all(isinstance(verify(key.sign(GOOD)), Principal) for key in KEYS)
    with pytest.raises(Refusal):
        drive(VERIFIER.verify(Op.for_request(HandClock(NOW), lambda _: None), "x"))
