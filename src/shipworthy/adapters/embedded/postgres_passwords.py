"""The three passwords of an embedded database, in one 0600 file of the caller's."""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from shipworthy.adapters.embedded.postgres_errors import WrongCredentials, told
from shipworthy.adapters.embedded.postgres_files import read_small, write_private

DATABASE = "shipworthy"
SUPERUSER = "postgres"
OWNER = "shipworthy_owner"
LOGIN = "shipworthy"
PORT = 5432  # names the socket; there is no TCP
PASSWORD_BYTES = 24
SHAPE = re.compile(r"[A-Za-z0-9_-]{16,128}")  # safe in SQL quotes, in a URL and in an environment
FORGET_HINT = "Remove that file and start again: new passwords are made and set."


@dataclass(frozen=True)
class Passwords:
    """One password a role."""

    superuser: str = field(repr=False)
    owner: str = field(repr=False)
    login: str = field(repr=False)

    @staticmethod
    def draw() -> Passwords:
        return Passwords(*(secrets.token_urlsafe(PASSWORD_BYTES) for _ in range(3)))


def write_passwords(place: Path, passwords: Passwords) -> None:
    with told(place):
        write_private(place, json.dumps(asdict(passwords)))


def read_passwords(place: Path) -> Passwords | None:
    """The stored passwords; None when there's no file, ``WrongCredentials`` when it isn't usable."""
    try:
        with told(place):
            try:
                content = json.loads(read_small(place))
            except FileNotFoundError:
                return None
        passwords = Passwords(**content)
        usable = all(isinstance(word, str) and SHAPE.fullmatch(word) for word in asdict(passwords).values())
    except (ValueError, TypeError, RecursionError):
        usable = False
    if not usable:
        raise WrongCredentials(f"{place} doesn't hold the passwords of the database.", FORGET_HINT)
    return passwords


def url(role: str, password: str, socket_dir: Path) -> str:
    """The libpq URL of a role, over the private socket."""
    return f"postgresql://{role}:{password}@/{DATABASE}?host={quote(os.fsencode(socket_dir), safe='')}&port={PORT}"
