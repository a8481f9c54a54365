"""What every test may ask for: a real PostgreSQL, started once, and databases on it that are copied from one template."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shipworthy.adapters.embedded.postgres import EmbeddedPostgres
from shipworthy.adapters.embedded.postgres_passwords import LOGIN, OWNER, PORT, SUPERUSER, read_passwords
from shipworthy.adapters.store import migrate

TEMPLATE = "template_store"


@dataclass(frozen=True)
class StoreUrls:
    """A database: ``url`` logs in as the server does, ``migrate_url`` as the owner, ``superuser_url`` is for sabotage."""

    url: str
    migrate_url: str
    superuser_url: str


@dataclass(frozen=True)
class Postgres:
    """One running server with databases of its own."""

    launcher: EmbeddedPostgres | None  # None: not ours to stop
    superuser_url: str
    passwords: dict[str, str]

    def url(self, role: str, database: str) -> str:
        parts = conninfo_to_dict(self.superuser_url)
        user = parts["user"] if role == SUPERUSER else role
        password = parts.get("password", "") if role == SUPERUSER else self.passwords[role]
        place = urlencode({"host": parts["host"], "port": parts.get("port", PORT)})
        return f"postgresql://{user}:{password}@/{database}?{place}"

    def urls(self, database: str) -> StoreUrls:
        return StoreUrls(*(self.url(role, database) for role in (LOGIN, OWNER, SUPERUSER)))

    def create(self, database: str, template: str) -> StoreUrls:
        with psycopg.connect(self.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute(f"create database {database} template {template} owner {OWNER}")
        return self.urls(database)

    def drop(self, database: str) -> None:
        with psycopg.connect(self.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute(f"drop database if exists {database} with (force)")


def start_postgres(base: Path) -> Postgres:
    """An embedded server below ``base``, which PostgreSQL's account must be able to enter."""
    launcher = EmbeddedPostgres(base / "store", base=base)
    cluster = launcher.start()
    home = cluster.data_path.parent
    kept = read_passwords(home / "passwords.json")
    assert kept is not None
    superuser_url = make_conninfo(cluster.url, user=SUPERUSER, password=kept.superuser, dbname="postgres")
    return Postgres(launcher, superuser_url, {OWNER: kept.owner, LOGIN: kept.login})


def adopt_postgres(superuser_url: str) -> Postgres:
    """Somebody's server, to test another version: gets the login roles and the database that the launcher makes."""
    passwords = {OWNER: secrets.token_urlsafe(), LOGIN: secrets.token_urlsafe()}
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        for role, password in passwords.items():
            known = conn.execute("select from pg_roles where rolname = %s", (role,)).rowcount
            creates = "createrole" if role == OWNER else ""
            conn.execute(f"{'alter' if known else 'create'} role {role} login {creates} password '{password}'")
        for database in (TEMPLATE, "store_shared", "shipworthy"):
            conn.execute(f"drop database if exists {database} with (force)")
        conn.execute(f"create database shipworthy owner {OWNER}")
    with psycopg.connect(make_conninfo(superuser_url, dbname="shipworthy"), autocommit=True) as conn:
        conn.execute("create extension vector")
    return Postgres(None, superuser_url, passwords)


@contextmanager
def running_postgres(adopted_url: str = "") -> Iterator[Postgres]:
    """A server with the migrated template: one of our own, gone afterwards, or somebody's."""
    base = Path(tempfile.mkdtemp(prefix="shipworthy-tests-"))
    base.chmod(0o755)
    server = None
    try:
        server = adopt_postgres(adopted_url) if adopted_url else start_postgres(base)
        template = server.create(TEMPLATE, "shipworthy")
        migrate.apply(template.migrate_url, LOGIN)
        yield server
    finally:
        if server is not None and server.launcher is not None:
            server.launcher.stop()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's server, or the one of SHIPWORTHY_TEST_POSTGRES (a superuser's URL; a throwaway: roles and databases are
    replaced). Whoever kills one takes `own_postgres`."""
    with running_postgres(os.environ.get("SHIPWORTHY_TEST_POSTGRES", "")) as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server that the module's tests may kill, stop and start again; each leaves it running."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def store_urls(postgres: Postgres) -> StoreUrls:
    """One migrated database for the whole session: tests share it, each under tenants of its own."""
    return postgres.create("store_shared", TEMPLATE)


@pytest.fixture
def fresh_store(postgres: Postgres) -> Iterator[StoreUrls]:
    """A migrated database of the test's own, for those that change roles, policies or the schema."""
    name = f"store_{secrets.token_hex(4)}"
    yield postgres.create(name, TEMPLATE)
    postgres.drop(name)


@pytest.fixture
def empty_store(postgres: Postgres) -> Iterator[StoreUrls]:
    """A database that was never migrated."""
    name = f"store_{secrets.token_hex(4)}"
    yield postgres.create(name, "shipworthy")
    postgres.drop(name)


@pytest.fixture
def tenant_name() -> Callable[[str], str]:
    """Names that no other test uses."""
    return lambda words: f"{words}-{secrets.token_hex(4)}"
