"""Why the embedded PostgreSQL could not be used, each with what to do about it.

StartRefused
└── EmbeddedError         embedded.failed
    ├── InUse             embedded.in_use           another process has it
    ├── OtherVersion      embedded.version          made by another major version of PostgreSQL
    ├── DiskFull          embedded.disk_full
    ├── PathUnusable      embedded.path             a file, not writable, not ours to write
    ├── NotOwner          embedded.not_owner        the store belongs to another account
    ├── DataMissing       embedded.data_missing     there was a database, and it isn't there any more
    ├── DataDamaged       embedded.data_damaged     there is something, and it isn't a database
    ├── StoreCopied       embedded.copied           two store paths point at one database
    ├── NoAccount         embedded.account          root, and no unprivileged account to run as
    ├── RuntimeMissing    embedded.runtime          no PostgreSQL binaries, or not the ones that were installed
    ├── WrongCredentials  embedded.credentials
    └── NotStarted        embedded.start_failed     PostgreSQL gave up; its last words are quoted
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from shipworthy.model.errors import StartRefused

FREE_BYTES_FLOOR = 1 << 20  # below this a file system is called full: PostgreSQL needs more than that to start
FULL_WORDS = ("No space left on device", "Disk quota exceeded")


class EmbeddedError(StartRefused):
    """The embedded PostgreSQL can't be used as things are."""

    CODE: ClassVar[str] = "embedded.failed"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(self.CODE, message, hint)


class InUse(EmbeddedError):
    """Another living process owns this database."""

    CODE = "embedded.in_use"


class OtherVersion(EmbeddedError):
    """The data directory was made by another major version of PostgreSQL."""

    CODE = "embedded.version"


class DiskFull(EmbeddedError):
    """The file system that holds the database is full; what was committed is safe."""

    CODE = "embedded.disk_full"


class PathUnusable(EmbeddedError):
    """The store path can't be read or written by this process."""

    CODE = "embedded.path"


class NotOwner(EmbeddedError):
    """The store was made by, and belongs to, another account."""

    CODE = "embedded.not_owner"


class DataMissing(EmbeddedError):
    """A database was here and is gone; beginning an empty one in its place would hide the loss."""

    CODE = "embedded.data_missing"


class DataDamaged(EmbeddedError):
    """What lies in the data directory isn't a whole PostgreSQL cluster."""

    CODE = "embedded.data_damaged"


class StoreCopied(EmbeddedError):
    """The store path is a copy of another one whose database it doesn't own."""

    CODE = "embedded.copied"


class NoAccount(EmbeddedError):
    """There is no account under which PostgreSQL could run."""

    CODE = "embedded.account"


class RuntimeMissing(EmbeddedError):
    """The PostgreSQL binaries are missing or aren't those that were installed."""

    CODE = "embedded.runtime"


class WrongCredentials(EmbeddedError):
    """The stored passwords are unreadable or aren't those of the database."""

    CODE = "embedded.credentials"


class NotStarted(EmbeddedError):
    """PostgreSQL ended, or didn't become ready in time."""

    CODE = "embedded.start_failed"


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Turn the operating system's refusals at ``place`` into ours."""
    try:
        yield
    except OSError as error:
        raise refusal(error, place) from error


def refusal(error: OSError, place: Path) -> EmbeddedError:
    """The one table from errno to error."""
    where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else place
    why = error.strerror or str(error)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return disk_full(where, why)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return PathUnusable(
                f"{where} can't be used by uid {os.geteuid()}: {why}.",
                "Give that account read and write access, or choose another store.path.",
            )
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR | errno.ELOOP | errno.ENAMETOOLONG:
            return PathUnusable(f"{where} isn't usable as a directory: {why}.", "Choose another store.path.")
        case _:
            return EmbeddedError(f"{where}: {why}.", "See the message of the operating system.")


def disk_full(place: Path, why: str) -> DiskFull:
    """A full disk, in words that calm: committed rows are safe."""
    return DiskFull(
        f"The disk that holds {place} is full ({why}). Everything that was committed is safe on it.",
        "Free some space (100 MB will do) and start again; nothing needs to be repaired or deleted.",
    )


def failed(place: Path, what: str, output: str, hint: str) -> EmbeddedError:
    """A PostgreSQL program failed: a full disk if that is the reason, else its last words."""
    if any(words in output for words in FULL_WORDS) or _is_full(place):
        return disk_full(place, FULL_WORDS[0])
    said = output.strip() or "it said nothing"
    return NotStarted(f"{what}. PostgreSQL's last lines:\n{said}", hint)


def _is_full(place: Path) -> bool:
    # A full disk can swallow the very log line that would have said so.
    try:
        space = os.statvfs(place)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < FREE_BYTES_FLOOR
