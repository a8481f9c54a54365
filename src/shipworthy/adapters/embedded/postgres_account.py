"""Under which account PostgreSQL runs, and how a program is run as it.

Why `nobody` for root? PostgreSQL refuses root, and nobody asked for an installer that creates accounts. `nobody` is the
one account that every Linux has and that owns nothing. It is shared with whatever else runs as `nobody` here, and such
a process could read the data files; where that matters, create an account `shipworthy` (preferred when it exists) or name
one. `postgres` isn't taken on purpose: it owns the firm's other databases.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shipworthy.adapters.embedded.postgres_errors import (
    EmbeddedError,
    NoAccount,
    RuntimeMissing,
    failed,
    refusal,
    told,
)

PREFERRED = ("shipworthy", "nobody")
TOOL_SECONDS_MAX = 300.0
OUTPUT_CHARACTERS_MAX = 4000
TOOL_HINT = "Put right what they name, then start again: nothing half-made was left behind."
# Nothing of the caller's environment reaches PostgreSQL: PGDATA, PGOPTIONS or LD_LIBRARY_PATH would change what runs.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """An account of this machine; ``switch`` when it isn't the one that runs Shipworthy."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def popen_uid(self) -> int | None:
        return self.uid if self.switch else None

    @property
    def popen_gid(self) -> int | None:
        return self.gid if self.switch else None

    @property
    def popen_groups(self) -> list[int] | None:
        return [] if self.switch else None

    def own(self, place: Path) -> None:
        """Give a file or folder that we have just made to the account."""
        if self.switch:
            os.chown(place, self.uid, self.gid, follow_symlinks=False)


def is_root() -> bool:
    return os.geteuid() == 0


def choose_account(wanted: str | None) -> Account:
    """The caller's own account; for root the wanted one, else the first of ``PREFERRED`` that exists."""
    if not is_root():
        return account_of(os.geteuid())
    for name in [wanted] if wanted else PREFERRED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise NoAccount(f"The account {name} is root, which PostgreSQL refuses.", "Name an unprivileged account.")
        return Account(name, entry.pw_uid, entry.pw_gid, switch=True)
    raise NoAccount(
        f"PostgreSQL refuses to run as root, and there is no account {wanted or ' or '.join(PREFERRED)} to run it as.",
        "Run Shipworthy as an ordinary account, or create one named shipworthy, or set store.url.",
    )


def account_of(uid: int) -> Account:
    """The account that has this uid; PostgreSQL's programs insist on a name for it."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise NoAccount(
            f"uid {uid} has no name on this machine, and PostgreSQL's initdb insists on one.",
            "Add a line for it to /etc/passwd, run as a named account, or set store.url.",
        ) from error
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=is_root() and uid != 0)


def require_way(account: Account, folder: Path) -> None:
    """``NoAccount`` when the account can't get to ``folder``: said here, because PostgreSQL's own words mislead."""
    for place in [folder, *folder.parents]:
        with told(place):
            status = place.stat()
        if not _may_enter(account, status):
            raise NoAccount(
                f"PostgreSQL runs as {account.name}, and {account.name} can't pass {place} "
                f"(mode {stat.S_IMODE(status.st_mode):04o}).",
                f"Let it pass: chmod o+x {place}",
            )


def _may_enter(account: Account, status: os.stat_result) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def run_as(account: Account, argv: list[str], *, what: str, place: Path, said: str = "") -> None:
    """Run one PostgreSQL program to its end; its output becomes part of the error when it fails."""
    try:
        done = subprocess.run(
            argv,
            input=said,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TOOL_SECONDS_MAX,
            env=ENVIRONMENT,
            cwd="/",
            umask=0o077,
            user=account.popen_uid,
            group=account.popen_gid,
            extra_groups=account.popen_groups,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise failed(place, f"{what}: it took more than {TOOL_SECONDS_MAX:.0f} s", "", TOOL_HINT) from error
    except OSError as error:
        raise cannot_run(error, Path(argv[0]), account) from error
    if done.returncode != 0:
        raise failed(place, f"{what} (exit code {done.returncode})", done.stdout[-OUTPUT_CHARACTERS_MAX:], TOOL_HINT)


def cannot_run(error: OSError, program: Path, account: Account) -> EmbeddedError:
    """Why a program didn't even begin to run."""
    if error.errno == errno.EPERM and account.switch:
        return NoAccount(
            f"This process is root but isn't allowed to run PostgreSQL as {account.name}: {error.strerror}.",
            "Allow it (a container drops the capabilities SETUID and SETGID?), or run as an ordinary account.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOEXEC):
        return RuntimeMissing(
            f"{program} can't be run as {account.name}: {error.strerror}.",
            "Reinstall the binaries, and look whether its file system is mounted noexec.",
        )
    return refusal(error, program)
