"""The console's session: the token that was pasted, sealed into a cookie that scripts cannot read.

Nothing of a session is kept here. Every request opens the cookie and identifies its token again, so that an expired token, a
revoked key or a role that was taken away ends the session at once, and a restart ends none.
"""

from __future__ import annotations

import base64
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

COOKIE = "shipworthy_console"
SESSION_S = 3_600
TOKEN_CHARS_MAX = 2_800  # a browser keeps 4,096 bytes a cookie
NONCE_BYTES = 12
PURPOSE = b"shipworthy/console/1"


class _Kept(Struct, frozen=True, array_like=True):
    token: str
    until_unix_s: int


def seal(key: bytes, token: str, now_unix_s: int) -> str:
    """The cookie's value. ``token`` has at most TOKEN_CHARS_MAX letters."""
    assert len(token) <= TOKEN_CHARS_MAX
    nonce = os.urandom(NONCE_BYTES)
    kept = msgspec.msgpack.encode(_Kept(token, now_unix_s + SESSION_S))
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, kept, PURPOSE)).decode()


def unseal(key: bytes, cookie: str, now_unix_s: int) -> str:
    """The token in it; "" when the cookie is not ours, was changed, or its time is over."""
    try:
        sealed = base64.urlsafe_b64decode(cookie.encode("ascii"))
        kept = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], PURPOSE)
        said = msgspec.msgpack.decode(kept, type=_Kept)
        if base64.urlsafe_b64encode(sealed).decode() != cookie:  # its last character has bits that nobody reads
            return ""
    except (ValueError, InvalidTag):  # msgspec's errors are ValueErrors too
        return ""
    return said.token if now_unix_s < said.until_unix_s else ""
