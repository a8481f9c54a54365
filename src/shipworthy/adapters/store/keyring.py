"""The key file: key-encryption keys, newest last, and the pepper of service keys.

    {"format": "shipworthy-keys/1", "pepper": "…", "kek": [{"id": "k-1f2e3d4c", "created": "2026-01-31", "key": "…"}]}

Every key is 32 random bytes in base64. The newest wraps, all of them unwrap: to rotate, append one. Whoever loses this file
loses the bodies; whoever copies it can read them. So it is the owner's alone (0600) and stands nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from shipworthy.model.errors import StartRefused

FORMAT = "shipworthy-keys/1"
KEY_BYTES = 32
FILE_BYTES_MAX = 65_536


class Kek(Struct, frozen=True):
    """One key-encryption key."""

    id: str
    key: bytes

    def __repr__(self) -> str:
        return f"Kek({self.id})"


class Keyring(Struct, frozen=True):
    """What a key file holds."""

    keks: tuple[Kek, ...]  # oldest first
    pepper: bytes

    def __repr__(self) -> str:
        return f"Keyring({', '.join(kek.id for kek in self.keks)})"

    @property
    def newest(self) -> Kek:
        return self.keks[-1]

    @property
    def cookie_key(self) -> bytes:
        """Seals the console's session cookie: derived from the pepper, so that every control plane has the same."""
        return hmac.digest(self.pepper, b"shipworthy/console-cookie/1", "sha256")

    @property
    def repeats_key(self) -> bytes:
        """Finds and seals the answers to repeated requests: derived from the pepper, the same on every worker."""
        return hmac.digest(self.pepper, b"shipworthy/repeats/1", "sha256")

    def find(self, kek_id: str) -> Kek | None:
        return next((kek for kek in self.keks if kek.id == kek_id), None)


class _KekLine(Struct, forbid_unknown_fields=True):
    id: str
    created: str
    key: str


class _KeyFile(Struct, forbid_unknown_fields=True):
    format: str
    pepper: str
    kek: list[_KekLine]


def open_keyring(path: Path) -> Keyring:
    """The keys in ``path``; made when the file does not exist. Raises StartRefused."""
    try:
        create_keyring(path)
    except FileExistsError:
        pass
    except OSError as error:
        raise StartRefused(
            "keys.unwritable",
            f"The key file {path} is not there and cannot be made: {error.strerror}.",
            "Set keys.file to a place that this account may write, or put the file there.",
        ) from error
    return read_keyring(path)


def create_keyring(path: Path) -> None:
    """A new key file with one key, whole or not at all; FileExistsError when there is one, whoever made it."""
    if path.exists():
        raise FileExistsError(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = msgspec.json.encode(_KeyFile(FORMAT, _drawn(), [_drawn_kek()]))
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(text, indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)  # unlike a rename it never replaces
    finally:
        os.unlink(fresh)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_keyring(path: Path) -> Keyring:
    """The keys in ``path``. Raises StartRefused when it is missing, open to others, or not a key file."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise StartRefused(
            "keys.unreadable",
            f"The key file {path} cannot be read: {error.strerror}.",
            "Bring it back from the backup: without it no stored body can be read.",
        ) from error
    if mode & 0o027:
        raise StartRefused(
            "keys.exposed",
            f"The key file {path} has mode {mode:04o}: others may read or change it.",
            f"chmod 600 {path}, and consider its keys known to whoever could read it.",
        )
    try:
        return _parse(text)
    except (msgspec.MsgspecError, binascii.Error, ValueError) as error:
        raise StartRefused(
            "keys.malformed",
            f"{path} is not a key file of the format {FORMAT}: {error}.",
            "Restore it from the backup. To begin anew move it away; bodies sealed under its keys stay unreadable.",
        ) from error


def _parse(text: bytes) -> Keyring:
    if len(text) > FILE_BYTES_MAX:
        raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
    said = msgspec.json.decode(text, type=_KeyFile)
    if said.format != FORMAT:
        raise ValueError(f"its format is {said.format!r}")
    keks = tuple(Kek(line.id, _key_bytes(line.key, line.id)) for line in said.kek)
    if not keks:
        raise ValueError("it holds no key-encryption key")
    if len({kek.id for kek in keks}) != len(keks):
        raise ValueError("two keys have the same id")
    return Keyring(keks, _key_bytes(said.pepper, "pepper"))


def _key_bytes(text: str, name: str) -> bytes:
    key = base64.b64decode(text, validate=True)
    if len(key) != KEY_BYTES:
        raise ValueError(f"{name} has {len(key)} bytes instead of {KEY_BYTES}")
    return key


def _drawn() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _drawn_kek() -> _KekLine:
    return _KekLine(f"k-{secrets.token_hex(4)}", datetime.now(UTC).date().isoformat(), _drawn())
