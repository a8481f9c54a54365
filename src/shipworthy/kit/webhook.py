"""For the tests of whoever receives alerts, and for the receiver itself: is this delivery ours, and of now?"""

from __future__ import annotations

from shipworthy.model.signature import DELIVERY_HEADER as DELIVERY_HEADER
from shipworthy.model.signature import SIGNATURE_HEADER as SIGNATURE_HEADER
from shipworthy.model.signature import BadSignature as BadSignature
from shipworthy.model.signature import check_signature, signed

TOLERANCE_S = 300.0


def verify(secret: str | bytes, header: str, body: bytes, now: float, tolerance_s: float = TOLERANCE_S) -> None:
    """Returns when ``header`` (x-shipworthy-signature) signs exactly ``body`` under ``secret`` at about ``now``.

    ``body`` is what arrived, byte by byte, before anything parses it; ``now`` is unix seconds. Raises BadSignature.
    """
    check_signature(_bytes(secret), header, body, now, tolerance_s)


def sign(secret: str | bytes, body: bytes, now: float) -> str:
    """The header that Shipworthy would send with ``body``: to play deliveries to a receiver in its tests."""
    return signed(_bytes(secret), body, int(now))


def _bytes(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret
