"""What a service key looks like: ``sk-ID-SECRET``, and how it is proved without being kept.

ID is public (80 random bits) and names the key in lists, logs and acts. SECRET is 200 random bits and six letters of
checksum, so that a mistyped or cut key is told apart without a look-up. Only HMAC-SHA256 of the secret under the
deployment's pepper is stored: a stolen table proves nothing without the pepper, and 200 bits cannot be searched.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from msgspec import Struct

PREFIX = "sk-"
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # 32 letters without i, l, o, u: none is mistaken for another
ID_LETTERS = 16
SECRET_LETTERS = 40
CHECK_LETTERS = 6
KEY_LETTERS = len(PREFIX) + ID_LETTERS + 1 + SECRET_LETTERS + CHECK_LETTERS


class SecretKey(Struct, frozen=True):
    """A whole service key, in hand for one moment: it never prints its secret."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"SecretKey(id={self.id!r})"

    def reveal(self) -> str:
        """The text that its owner gets, once."""
        return f"{PREFIX}{self.id}-{self.secret}{_checksum(self.id, self.secret)}"

    def proof(self, pepper: bytes) -> bytes:
        """What the store keeps instead of the secret."""
        return hmac.digest(pepper, f"shipworthy service key\0{self.id}\0{self.secret}".encode(), "sha256")


def mint() -> SecretKey:
    """A new key."""
    return SecretKey(_letters(ID_LETTERS), _letters(SECRET_LETTERS))


def parse(text: str) -> SecretKey | None:
    """The key that ``text`` spells; None when it is no key or was mistyped. Costs no look-up."""
    if len(text) != KEY_LETTERS or not text.startswith(PREFIX):
        return None
    public, dash, rest = text.removeprefix(PREFIX).partition("-")
    secret, check = rest[:SECRET_LETTERS], rest[SECRET_LETTERS:]
    if not dash or len(public) != ID_LETTERS or not set(public + rest) <= set(ALPHABET):
        return None
    return SecretKey(public, secret) if check == _checksum(public, secret) else None


def _letters(count: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(count))


def _checksum(public: str, secret: str) -> str:
    digest = hashlib.sha256(f"{public}-{secret}".encode()).digest()
    return "".join(ALPHABET[byte & 31] for byte in digest[:CHECK_LETTERS])
