"""Signed webhooks: ``t=UNIX,v1=HEX``, where HEX is HMAC-SHA256 under the shared secret over ``t``, a dot and the body.

The time is signed with the body, so that a receiver can refuse what was recorded and sent again later.
"""

from __future__ import annotations

import hmac
import re

SIGNATURE_HEADER = "x-shipworthy-signature"
DELIVERY_HEADER = "x-shipworthy-delivery"
HEADER_CHARS_MAX = 1_024
_PART = re.compile(r"(t|v1)=([0-9a-f]{1,64})", re.ASCII)


class BadSignature(ValueError):
    """The delivery does not prove that it was signed with the secret, about now."""


def signed(secret: bytes, body: bytes, unix_s: int) -> str:
    """The value of x-shipworthy-signature for ``body``."""
    return f"t={unix_s},v1={_proof(secret, str(unix_s), body)}"


def check_signature(secret: bytes, header: str, body: bytes, now_unix_s: float, tolerance_s: float) -> None:
    """Raises BadSignature unless one ``v1`` of ``header`` is right and ``t`` is at most ``tolerance_s`` from now."""
    if len(header) > HEADER_CHARS_MAX:
        raise BadSignature(f"the header is longer than {HEADER_CHARS_MAX} characters")
    times: list[str] = []
    proofs: list[str] = []
    for part in header.split(","):
        found = _PART.fullmatch(part.strip())
        if found is None:
            continue  # a scheme to come
        (times if found[1] == "t" else proofs).append(found[2])
    if len(times) != 1 or not times[0].isdecimal() or not proofs:
        raise BadSignature("wanted: t=UNIX,v1=HEX")
    wanted = _proof(secret, times[0], body)
    if not any([hmac.compare_digest(wanted, proof) for proof in proofs]):  # noqa: C419 - all are compared, always
        raise BadSignature("signed with another secret, or changed on the way")
    if abs(now_unix_s - int(times[0])) > tolerance_s:
        raise BadSignature(f"signed more than {tolerance_s:g} s from now")


def _proof(secret: bytes, unix_s: str, body: bytes) -> str:
    return hmac.digest(secret, unix_s.encode() + b"." + body, "sha256").hex()
