"""Small files of an embedded database: written whole or not at all, read with a bound, never through a link."""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path

from shipworthy.adapters.embedded.postgres_errors import DataDamaged

SMALL_FILE_BYTES_MAX = 4096


def resolved(path: Path) -> Path:
    """The path without links; unlike ``Path.resolve`` it leaves a loop of links for the first use to refuse."""
    return Path(os.path.realpath(path))


def read_small(place: Path) -> str:
    """A small text file's content; OSError when it's missing, a link or unreadable."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(SMALL_FILE_BYTES_MAX).decode("utf-8", errors="surrogateescape")


def read_word(place: Path, key: str, form: re.Pattern[str]) -> str | None:
    """One word of a small JSON file of ours; None when there's no such file, ``DataDamaged`` when it isn't ours."""
    try:
        content = json.loads(read_small(place))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise DataDamaged(f"{place} isn't the JSON that Shipworthy wrote there.", f"Restore {place}.") from error
    word = content.get(key) if isinstance(content, dict) else None
    if not isinstance(word, str) or not form.fullmatch(word):
        raise DataDamaged(f"{place} has no usable `{key}`.", f"Restore {place}.")
    return word


def write_private(place: Path, text: str, *, new: bool = False, mode: int = 0o600) -> None:
    """Write a file whole or not at all, and through to the disk; ``new`` refuses to replace one."""
    fresh = place.with_name(f"{place.name}.new-{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        if new:
            os.link(fresh, place)
        else:
            os.rename(fresh, place)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_open(folder: Path) -> None:
    """A folder of ours that every account may pass through; one that is there already is left as it is."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(0o755)  # whatever the umask of the caller is
