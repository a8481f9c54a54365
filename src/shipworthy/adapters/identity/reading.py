"""From the bytes of a token to its header and claims, before anything in it is believed.

Two readers that disagree about a token are an attack in the making, so this reader takes one spelling only: three canonical
base64url segments, JSON without duplicate keys or numbers that are none, no header that moves the choice of a key to the
sender, no encryption, no nesting.
"""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import NoReturn

from msgspec import Struct

from shipworthy.model.errors import Refusal

TOKEN_CHARS_MAX = 16_384
KID_CHARS_MAX = 256
QUOTED_CHARS_MAX = 64

SENDERS_KEYS = ("jku", "x5u", "jwk")  # a key, or where to get one, named by whoever wrote the token
UNSUPPORTED = ("crit", "b64", "cty", "enc", "zip", "epk")
TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})

JsonObject = Mapping[str, object]


class Token(Struct, frozen=True):
    """A token that can be read. Nothing in it is proved."""

    header: JsonObject
    claims: JsonObject
    signed: bytes
    signature: bytes
    algorithm: str
    kid: str | None
    issuer: str


def read_token(text: str) -> Token:
    """The token that ``text`` spells. Raises Refusal identify.malformed or identify.algorithm_refused."""
    if len(text) > TOKEN_CHARS_MAX:
        raise malformed(f"{len(text)} characters, at most {TOKEN_CHARS_MAX} are read")
    dots = text.count(".")
    if dots == 4:
        raise malformed("an encrypted token (JWE): it must be signed, not encrypted")
    if dots != 2:
        raise malformed(f"{dots + 1} segments, a compact signed token has 3")
    head, body, tail = text.split(".")
    header = read_object(read_segment(head, "header"), "header")
    algorithm, kid = check_header(header)
    claims = read_object(read_segment(body, "claims"), "claims")
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise Refusal("identify.missing_claim", claim="iss", detail="iss is not a text")
    return Token(
        header=header,
        claims=claims,
        signed=text[: len(head) + 1 + len(body)].encode(),
        signature=read_segment(tail, "signature"),
        algorithm=algorithm,
        kid=kid,
        issuer=issuer,
    )


def check_header(header: JsonObject) -> tuple[str, str | None]:
    """Algorithm and key id of a header that leaves the choice of the key to us."""
    for name in SENDERS_KEYS:
        if name in header:
            raise malformed(f"the header brings its own key ({name})")
    for name in UNSUPPORTED:
        if name in header:
            raise malformed(f"the header has {name}: nested, encrypted or extended tokens are not read")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise malformed(f"typ {quoted(kind)} is not an access token")
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= KID_CHARS_MAX):
        raise malformed(f"kid is not a text of 1 to {KID_CHARS_MAX} characters")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Refusal("identify.algorithm_refused", detail="the header has no alg")
    return algorithm, kid


def read_segment(text: str, name: str) -> bytes:
    """The bytes of one base64url segment in its only canonical spelling (RFC 7515 §2: no padding, no spare bits)."""
    try:
        spelled = text.encode("ascii")
        data = urlsafe_b64decode(spelled + b"=" * (-len(spelled) % 4))
    except ValueError as reason:
        raise malformed(f"the {name} is not base64url") from reason
    if urlsafe_b64encode(data).rstrip(b"=") != spelled:
        raise malformed(f"the {name} is not canonical base64url")
    return data


def read_object(data: bytes, name: str) -> JsonObject:
    """The JSON object that ``data`` spells; duplicate keys at any depth and numbers that are none are refused."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as reason:
        raise malformed(f"the {name}: {_said(reason)}") from reason
    if not isinstance(value, dict):
        raise malformed(f"the {name} is not a JSON object")
    return value


def malformed(detail: str) -> Refusal:
    return Refusal("identify.malformed", detail=detail)


def quoted(value: object) -> str:
    """A value out of an unproved token, safe and short enough for a log line."""
    text = ascii(value)
    return text if len(text) <= QUOTED_CHARS_MAX else f"{text[:QUOTED_CHARS_MAX]}…"


def _said(reason: Exception) -> str:
    """What is wrong with JSON, without any of it."""
    match reason:
        case json.JSONDecodeError():
            return f"not JSON ({reason.msg} at {reason.pos})"
        case UnicodeDecodeError():
            return "not UTF-8"
        case RecursionError():
            return "nested too deep"
        case _Unreadable():
            return str(reason)
        case _:
            return "not JSON"


class _Unreadable(ValueError):
    """JSON that readers disagree on."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Unreadable("an object has a key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Unreadable("a number is too large")
    return number


def _no_constant(text: str) -> NoReturn:
    raise _Unreadable(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
