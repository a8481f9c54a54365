"""Making a database, and looking after one between two runs.

Everything is made under a name that nobody reads, synced, then renamed: what is called ``data`` is whole. The few
statements that only a superuser may run go through PostgreSQL's single-user mode, so that no server with a half-made
database ever listens, and passwords pass through a pipe, never through an argument list or a log.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from shipworthy.adapters.embedded.postgres_account import run_as
from shipworthy.adapters.embedded.postgres_binaries import Runtime
from shipworthy.adapters.embedded.postgres_errors import told
from shipworthy.adapters.embedded.postgres_files import read_small, sync_folder, write_private
from shipworthy.adapters.embedded.postgres_home import Home
from shipworthy.adapters.embedded.postgres_passwords import (
    DATABASE,
    LOGIN,
    OWNER,
    SUPERUSER,
    Passwords,
    read_passwords,
    write_passwords,
)

PARTIAL = "data.new-"
PASSWORD_FILE = "password.new-"
LOCALE = ("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
# Written into postgresql.conf, where the operator may change them. What safety needs is on the server's command line.
SETTINGS = {
    "max_connections": "300",  # a worker has up to 17, the control plane as many; an unused slot costs next to nothing
    "shared_buffers": "128MB",  # touched only as it fills: an idle server stays small
    "max_wal_size": "512MB",
    # Not /dev/shm: containers give it 64 MB, and systemd empties it when an ordinary account logs out.
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# A statement that fails must not end up in the output with its password, and the next one must not run.
SINGLE_USER = {"exit_on_error": "on", "log_min_error_statement": "panic", "log_checkpoints": "off", "fsync": "on"}
ROLE = "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOREPLICATION"


def create(home: Home, runtime: Runtime, progress: Callable[[str], None]) -> None:
    """Make the database of a home that has none; a failure leaves nothing that looks like one."""
    progress("creating the database (once, a few seconds)")
    passwords = Passwords.draw()
    write_passwords(home.passwords, passwords)
    partial = home.root / f"{PARTIAL}{secrets.token_hex(4)}"
    try:
        with told(home.root):
            partial.mkdir(mode=0o700)
            home.account.own(partial)
        _initdb(home, runtime, partial, passwords)
        _single_user(home, runtime, partial, "postgres", _roles("CREATE", passwords) + _database())
        _single_user(home, runtime, partial, DATABASE, ["CREATE EXTENSION vector"])
        _run(home, runtime, "initdb", ["--sync-only", "-D", str(partial)], "syncing the new database failed")
        with told(home.root):
            os.rename(partial, home.data)
            sync_folder(home.root)
            settle(home, runtime)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def look_after(home: Home, runtime: Runtime, progress: Callable[[str], None]) -> None:
    """Before a start: new passwords where they were lost, and the extension brought up to a new wheel's version."""
    passwords = read_passwords(home.passwords)
    with told(home.settled):
        if passwords is not None and is_settled(home, runtime):
            return
    progress("setting new passwords" if passwords is None else f"adapting the database to PostgreSQL {runtime.version}")
    if passwords is None:
        passwords = Passwords.draw()
        _single_user(home, runtime, home.data, "postgres", _roles("ALTER", passwords))
        write_passwords(home.passwords, passwords)
    _single_user(home, runtime, home.data, DATABASE, ["ALTER EXTENSION vector UPDATE"])
    with told(home.settled):
        settle(home, runtime)


def settle(home: Home, runtime: Runtime) -> None:
    """Note that the database is whole, and for which programs."""
    write_private(home.settled, runtime.digest)


def is_settled(home: Home, runtime: Runtime) -> bool:
    """Whether these very programs last looked after the database."""
    try:
        return read_small(home.settled) == runtime.digest
    except FileNotFoundError:
        return False


def sweep(home: Home) -> None:
    """Remove what an interrupted creation left; only the holder of the lock may."""
    with told(home.root):
        for name in os.listdir(home.root):
            if name.startswith(PARTIAL):
                shutil.rmtree(home.root / name, ignore_errors=True)
            elif name.startswith(PASSWORD_FILE):
                (home.root / name).unlink(missing_ok=True)


def _initdb(home: Home, runtime: Runtime, partial: Path, passwords: Passwords) -> None:
    secret = home.root / f"{PASSWORD_FILE}{secrets.token_hex(4)}"
    try:
        with told(secret):
            write_private(secret, passwords.superuser + "\n")
            home.account.own(secret)
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        arguments = [
            *("-D", str(partial), "-U", SUPERUSER, f"--pwfile={secret}", "--auth=scram-sha-256"),
            *(*LOCALE, "--no-sync", "--no-instructions", *settings),
        ]
        _run(home, runtime, "initdb", arguments, "initdb failed")
    finally:
        secret.unlink(missing_ok=True)


def _roles(verb: str, passwords: Passwords) -> list[str]:
    return [
        f"ALTER ROLE {SUPERUSER} PASSWORD '{passwords.superuser}'",
        f"{verb} ROLE {OWNER} {ROLE} CREATEROLE PASSWORD '{passwords.owner}'",
        f"{verb} ROLE {LOGIN} {ROLE} NOCREATEROLE PASSWORD '{passwords.login}'",
    ]


def _database() -> list[str]:
    return [
        f"CREATE DATABASE {DATABASE} OWNER {OWNER}",
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC",
        "REVOKE ALL ON DATABASE template1 FROM PUBLIC",
    ]


def _single_user(home: Home, runtime: Runtime, data: Path, database: str, statements: list[str]) -> None:
    settings = [part for name, value in SINGLE_USER.items() for part in ("-c", f"{name}={value}")]
    _run(
        home,
        runtime,
        "postgres",
        ["--single", "-D", str(data), *settings, database],
        "preparing the database failed",
        said="".join(f"{statement};\n" for statement in statements),
    )


def _run(home: Home, runtime: Runtime, program: str, arguments: list[str], what: str, said: str = "") -> None:
    run_as(home.account, [str(runtime.program(program)), *arguments], what=what, place=home.root, said=said)
