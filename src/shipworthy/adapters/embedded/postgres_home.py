"""Where an embedded database lies on disk, and to whom each part belongs.

ordinary account                    root (postgres_identity says why elsewhere)
<store path>/pg/                    /var/lib/shipworthy/<id>/      the cluster's home
    data/                               data/                      PostgreSQL's own, 0700, owned by its account
    run/                                run/                       its socket, 0700, likewise
    passwords.json  0600                …                          everything else is the caller's
    holder.lock  server.lock
    pg_hba.conf  settled  server.log
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shipworthy.adapters.embedded.postgres_account import Account, account_of, choose_account, is_root, require_way
from shipworthy.adapters.embedded.postgres_errors import (
    DataDamaged,
    DataMissing,
    NotOwner,
    OtherVersion,
    PathUnusable,
    told,
)
from shipworthy.adapters.embedded.postgres_files import read_small, resolved
from shipworthy.adapters.embedded.postgres_identity import MARKER, home_of, read_identity

BASE = Path("/var/lib/shipworthy")
SOCKET_PATH_BYTES_MAX = 107
SOCKET_NAME = ".s.PGSQL.5432"
TEMPORARY_PREFIX = "shipworthy-"


@dataclass(frozen=True)
class Home:
    """The directory of one cluster, and the account that its server runs as."""

    root: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def passwords(self) -> Path:
        return self.root / "passwords.json"

    @property
    def hba(self) -> Path:
        return self.root / "pg_hba.conf"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def settled(self) -> Path:
        """Written when the database is whole: which PostgreSQL last looked after it."""
        return self.root / "settled"

    @property
    def name(self) -> str:
        """PostgreSQL's cluster_name: part of every server process's title, so that they can be told apart."""
        return "shipworthy-" + hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]

    def make_socket_dir(self) -> Path:
        """A private directory for the socket; outside the home when its path wouldn't do for a socket."""
        run = self.run
        if socket_fits(run):
            run.mkdir(mode=0o700, exist_ok=True)
        else:
            run = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
            if not socket_fits(run):
                run.rmdir()
                run = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir="/tmp"))
        self.account.own(run)
        return run


def socket_fits(folder: Path) -> bool:
    """Whether a socket in the folder has a path that the kernel takes, and libpq too: it reads a comma as a list."""
    return len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX and "," not in str(folder)


def find_home(path: Path, base: Path) -> Home | None:
    """The home of the store at ``path`` when it holds a database; changes nothing."""
    path = resolved(path)
    with told(path):
        identity = read_identity(path)
        root = path / "pg" if identity is None else resolved(base) / identity
        try:
            status = (root / "data").stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Home(root, account_of(status.st_uid))


def open_home(path: Path, base: Path, account: str | None, progress: Callable[[str], None]) -> Home:
    """The home of the store at ``path``, made when it's new; refuses another's, a copy, and one that lost its data."""
    path = resolved(path)
    if not str(path).isprintable():  # postmaster.pid is a file of lines
        raise PathUnusable(f"The store path {str(path)!r} holds unprintable characters.", "Choose another store.path.")
    with told(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
            raise PathUnusable(
                f"The store path {path} isn't a directory in which uid {os.geteuid()} may write.",
                "Choose another store.path, or give that account write access.",
            )
        home = _open_root(path, resolved(base), account, progress) if is_root() else _open_own(path)
        if home.settled.exists() and not home.data.exists():
            begin = path / MARKER if home.account.switch else home.root
            raise DataMissing(
                f"The database of the store {path} was in {home.data} and isn't there.",
                f"Bring it back (a volume that isn't mounted?). To begin with an empty database, remove {begin}.",
            )
    return home


def _open_own(path: Path) -> Home:
    if read_identity(path) is not None:
        raise NotOwner(
            f"The store {path} was made by root, and its data belongs to root.",
            "Run this as root, or choose another store.path.",
        )
    root = path / "pg"
    root.mkdir(mode=0o700, exist_ok=True)
    _require_owner(root)
    if (root / "data").exists():
        _require_owner(root / "data")
    return Home(root, choose_account(None))


def _open_root(path: Path, base: Path, account: str | None, progress: Callable[[str], None]) -> Home:
    if read_identity(path) is None and (path / "pg" / "data").exists():
        _require_owner(path / "pg" / "data")
    root = home_of(path, base, progress)
    data = root / "data"
    chosen = account_of(data.stat().st_uid) if data.is_dir() else choose_account(account)
    if not chosen.switch:
        raise NotOwner(f"{data} belongs to root, and PostgreSQL refuses to run as root.", f"chown -R nobody {data}")
    require_way(chosen, root)
    return Home(root, chosen)


def _require_owner(place: Path) -> None:
    owner = place.stat().st_uid
    if owner != os.geteuid():
        raise NotOwner(
            f"{place} belongs to uid {owner}, and this process runs as uid {os.geteuid()}.", f"Run it as uid {owner}."
        )


def require_version(home: Home, major: int) -> None:
    """``OtherVersion`` or ``DataDamaged`` unless the data directory was made by this major version."""
    place = home.data / "PG_VERSION"
    aside = f"Restore {home.data} from a backup, or move {home.root} away to begin with an empty database."
    with told(place):
        try:
            said = read_small(place).strip()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataDamaged(f"{home.data} isn't a PostgreSQL data directory: no PG_VERSION.", aside) from error
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", said):
        raise DataDamaged(f"{place} doesn't hold a version number: {said[:40]!r}.", aside)
    if said != str(major):
        raise OtherVersion(
            f"The database in {home.data} was made by PostgreSQL {said}; this Shipworthy brings PostgreSQL {major}.",
            f"Dump it with the Shipworthy release that made it and load it into a new store, or set store.url to a "
            f"PostgreSQL {said} server, or move {home.root} away to begin with an empty database.",
        )
