"""Brings a database's schema to what this code needs: plain SQL files, each run once, with its checksum kept.

Files are ``NNNN_{pre|post}_words.sql``. ``pre`` only adds, so that the release before it keeps working beside it; ``post``
may take away, and runs when that release is gone. All runs under one advisory lock: two processes that migrate at once
take turns, and the second finds nothing to do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

import psycopg
from msgspec import Struct, structs
from psycopg import Connection, errors, sql
from psycopg.conninfo import conninfo_to_dict

from shipworthy.adapters.store.blocks import blocks, folder
from shipworthy.adapters.store.months import MENDED_MAX
from shipworthy.adapters.store.pool import SCHEMA, StoreRole
from shipworthy.adapters.store.roles import prepare_roles
from shipworthy.adapters.store.trouble import first_line, translated
from shipworthy.model.errors import StartRefused

NAME = re.compile(r"^(?P<number>\d{4})_(?P<phase>pre|post)_[a-z0-9_]+\.sql$")
LOCK = 0x5348_4950_574F_5254  # "SHIPWORT": one lock a database
LOCK_WAIT_S = 60
STATEMENT_S = 600
SERVER_VERSION_MIN = 160_000


class Migration(Struct, frozen=True):
    """One file."""

    number: int
    phase: str
    name: str
    sha256: str
    text: str


class Applied(Struct, frozen=True):
    """One line of the register: what was run on this database."""

    number: int
    phase: str
    name: str
    sha256: str


class Plan(Struct, frozen=True):
    """What is to be done; nothing has been done."""

    pending: tuple[Migration, ...]
    applied: tuple[Applied, ...]


@cache
def shipped() -> tuple[Migration, ...]:
    """Every migration of this code, in order. A bad name or a number that stands twice is an error."""
    found: dict[int, Migration] = {}
    for file in sorted(folder("migrations").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".sql"):
            continue
        title = NAME.match(file.name)
        if title is None:
            raise ValueError(f"migrations/{file.name}: wanted NNNN_pre_words.sql or NNNN_post_words.sql")
        text = file.read_text(encoding="utf-8")
        number = int(title["number"])
        if number in found:
            raise ValueError(f"migrations/{file.name}: the number is taken by {found[number].name}")
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        found[number] = Migration(number, title["phase"], file.name, sha256, text)
    return tuple(found.values())


def login_of(url: str) -> str:
    """The role that logs in with ``url``."""
    return str(conninfo_to_dict(url).get("user") or "")


def plan(migrate_url: str, migrations: Sequence[Migration] | None = None) -> Plan:
    """What ``apply`` would run. Raises StartRefused for a schema that this code may not touch, StoreUnavailable."""
    with _owner(migrate_url) as conn:
        return _plan(conn, migrations)


def apply(
    migrate_url: str,
    login: str,
    *,
    post: bool = True,
    migrations: Sequence[Migration] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Migration, ...]:
    """Runs what is pending and returns it. ``login`` is the role of ``store.url``, which gets the three roles.

    ``post=False`` stops before the first pending ``post`` file: for the time in which two releases run side by side.
    Raises StartRefused with what a DBA must do, StoreUnavailable.
    """
    done: list[Migration] = []
    with _owner(migrate_url) as conn, _locked(conn):
        pending = _plan(conn, migrations).pending  # refuses before anything is touched
        prepare_roles(conn, login)
        _prepare_database(conn)
        for migration in pending:
            if migration.phase == "post" and not post:
                break
            progress(f"schema: {migration.name}")
            _run(conn, migration)
            done.append(migration)
        _mend(conn)
    return tuple(done)


def _mend(conn: Connection) -> None:
    """Months that are still in a default partition, however large that is: whoever migrates has chosen the time."""
    if not conn.execute(blocks("migrate")["mends"]).fetchone():
        return  # a schema from before
    with suppress(errors.LockNotAvailable):  # somebody works with it: the schema is migrated all the same
        for _ in range(MENDED_MAX):
            if not conn.execute(blocks("migrate")["mend_partitions"]).fetchone():
                break


@contextmanager
def _owner(migrate_url: str) -> Generator[Connection]:
    with (
        translated(),
        psycopg.connect(
            migrate_url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=5,
            application_name="shipworthy migrate",
        ) as conn,
    ):
        if conn.info.server_version < SERVER_VERSION_MIN:
            raise StartRefused(
                "store.version",
                f"The store runs PostgreSQL {conn.info.parameter_status('server_version')}; 16 or newer is needed.",
                "Upgrade the server, or leave store.url out to use the embedded one.",
            )
        conn.execute(f"set statement_timeout = '{STATEMENT_S}s'")
        conn.execute("set client_min_messages = warning")
        conn.execute(f"set search_path = {SCHEMA}, public")
        yield conn


@contextmanager
def _locked(conn: Connection) -> Generator[None]:
    conn.execute(f"set lock_timeout = '{LOCK_WAIT_S}s'")
    conn.execute(blocks("migrate")["lock"], {"key": LOCK})
    conn.execute("set lock_timeout = '10s'")
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute(blocks("migrate")["unlock"], {"key": LOCK})


def _prepare_database(conn: Connection) -> None:
    """The schema, its register and the extension, tolerant of what a DBA has prepared."""
    try:
        conn.execute(f"create schema if not exists {SCHEMA}")
        for role in StoreRole:
            conn.execute(sql.SQL("grant usage on schema {} to {}").format(sql.Identifier(SCHEMA), sql.Identifier(role)))
        conn.execute(blocks("migrate")["create_register"])
        conn.execute(f"grant select on {SCHEMA}.migration to {', '.join(StoreRole)}")
    except errors.InsufficientPrivilege as refused:
        raise StartRefused(
            "store.schema",
            f"The login of migrate_url may not make or own the schema {SCHEMA}: {refused.diag.message_primary}.",
            f"Let a DBA run: CREATE SCHEMA {SCHEMA} AUTHORIZATION {conn.info.user};",
        ) from refused
    try:
        conn.execute("create extension if not exists vector")
    except (errors.InsufficientPrivilege, errors.UndefinedFile, errors.FeatureNotSupported) as refused:
        raise StartRefused(
            "store.vector_missing",
            f"The extension vector (pgvector) is not in this database: {refused.diag.message_primary}.",
            "Install pgvector on the server and let a superuser run in this database: CREATE EXTENSION vector;",
        ) from refused


def _plan(conn: Connection, migrations: Sequence[Migration] | None) -> Plan:
    known = {migration.number: migration for migration in (shipped() if migrations is None else migrations)}
    applied = registered(conn)
    for entry in applied:
        ours = known.get(entry.number)
        if ours is None:
            raise StartRefused(
                "store.schema_newer",
                f"The schema holds {entry.name}, which this version does not know: a newer Shipworthy migrated it.",
                "Run the newer version; going back needs a backup from before.",
            )
        if ours.sha256 != entry.sha256:
            raise StartRefused(
                "store.migration_changed",
                f"{ours.name} differs from what was run on this database (sha256 {entry.sha256[:12]}…).",
                "Install an unchanged release; a migration that has run is never edited.",
            )
    done = {entry.number for entry in applied}
    return Plan(tuple(known[number] for number in sorted(known) if number not in done), applied)


def registered(conn: Connection) -> tuple[Applied, ...]:
    """What was run on this database; nothing when it is new."""
    try:
        rows = conn.execute(blocks("migrate")["registered"]).fetchall()
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        return ()
    return tuple(Applied(*row) for row in rows)


def _run(conn: Connection, migration: Migration) -> None:
    try:
        with conn.transaction():
            conn.execute(sql.SQL(migration.text))
            conn.execute(blocks("migrate")["register"], structs.asdict(migration))
    except errors.ProgrammingError as failed:
        raise StartRefused(
            "store.migration_failed",
            f"{migration.name} failed and was rolled back: {first_line(failed)}.",
            "The database was changed by hand, or migrate_url lacks a right; nothing of this file was kept.",
        ) from failed
