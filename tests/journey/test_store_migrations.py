"""The schema comes up once, whoever starts first, and never under a database that it does not fit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from shipworthy.adapters.store import migrate
from shipworthy.adapters.store.migrate import Migration, apply, login_of, plan, shipped
from shipworthy.model.errors import StartRefused, StoreUnavailable


def a_migration(number: int, text: str, phase: str = "pre") -> Migration:
    return Migration(number, phase, f"{number:04d}_{phase}_test.sql", hashlib.sha256(text.encode()).hexdigest(), text)


MIGRATOR = """
import sys
from shipworthy.adapters.store.migrate import apply
migrate_url, login = sys.stdin.read().split()
print(len(apply(migrate_url, login)))
"""


def test_processes_that_migrate_at_once_take_turns(empty_store) -> None:
    """Four processes, one empty database: each file runs once."""
    said = f"{empty_store.migrate_url} {login_of(empty_store.url)}"
    processes = [
        subprocess.Popen([sys.executable, "-c", MIGRATOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda process: process.communicate(said, timeout=60)[0], processes))
    assert sorted(map(int, answers)) == [0, 0, 0, len(shipped())]
    assert plan(empty_store.migrate_url).pending == ()


def test_a_plan_changes_nothing(empty_store) -> None:
    assert plan(empty_store.migrate_url).pending == shipped()
    assert plan(empty_store.migrate_url).pending == shipped()
    with psycopg.connect(empty_store.migrate_url) as conn:
        assert conn.execute("select to_regnamespace('shipworthy')").fetchone() == (None,)


def test_an_edited_migration_is_refused(fresh_store) -> None:
    edited = (*shipped()[:-1], a_migration(shipped()[-1].number, "select 'other'"))
    for act in (plan, apply):
        with pytest.raises(StartRefused) as refused:
            act(fresh_store.migrate_url, migrations=edited, **({"login": "shipworthy"} if act is apply else {}))
        assert refused.value.code == "store.migration_changed"


def test_a_login_that_is_not_there_is_named(empty_store) -> None:
    with pytest.raises(StartRefused) as refused:
        apply(empty_store.migrate_url, "nobody-here")
    assert refused.value.code == "store.login_missing"


def test_a_newer_schema_is_refused(fresh_store) -> None:
    with pytest.raises(StartRefused) as refused:
        plan(fresh_store.migrate_url, shipped()[:-1])
    assert refused.value.code == "store.schema_newer"
    assert shipped()[-1].name in refused.value.message


def test_a_migration_that_fails_leaves_nothing(fresh_store) -> None:
    bad = a_migration(9_001, "create table half (n int); select no_such_function()")
    with pytest.raises(StartRefused) as refused:
        apply(fresh_store.migrate_url, login_of(fresh_store.url), migrations=(*shipped(), bad))
    assert refused.value.code == "store.migration_failed"
    assert "no_such_function" in refused.value.message
    with psycopg.connect(fresh_store.migrate_url) as conn:
        assert conn.execute("select to_regclass('shipworthy.half')").fetchone() == (None,)


def test_what_takes_away_waits_until_it_may(fresh_store) -> None:
    """pre, then post, then pre: without `post` it stops before the first that takes something away."""
    more = (
        *shipped(),
        a_migration(9_001, "create table one (n int)"),
        a_migration(9_002, "drop table one", "post"),
        a_migration(9_003, "create table three (n int)"),
    )
    login = login_of(fresh_store.url)
    assert [m.number for m in apply(fresh_store.migrate_url, login, post=False, migrations=more)] == [9_001]
    assert [m.number for m in apply(fresh_store.migrate_url, login, migrations=more)] == [9_002, 9_003]


def test_an_owner_who_may_not_make_roles_gets_what_a_dba_must_run(postgres, empty_store) -> None:
    """A managed database where the roles are another's work: the script of the refusal makes it go on."""
    with psycopg.connect(empty_store.superuser_url, autocommit=True) as conn:
        conn.execute("create role modest login password 'modest'")
        conn.execute("create role app_of_modest login password 'modest'")
        database = conn.info.dbname
        conn.execute(f"grant create on database {database} to modest")
        url = empty_store.superuser_url.split("@", 1)[1]
        modest_url = f"postgresql://modest:modest@{url}"
        try:
            with pytest.raises(StartRefused) as refused:
                apply(modest_url, "app_of_modest")
            assert refused.value.code == "store.roles"
            script = refused.value.hint.removeprefix("Let a DBA run: ")
            for statement in script.split("; "):
                if not statement.startswith("CREATE ROLE"):  # they exist: they belong to the cluster
                    conn.execute(statement.rstrip(";"))
            assert len(apply(modest_url, "app_of_modest")) == len(shipped())
        finally:
            conn.execute("drop schema if exists shipworthy cascade")
            conn.execute("drop owned by modest, app_of_modest")
            conn.execute("drop role modest, app_of_modest")


def test_a_store_that_is_away_is_said_to_be_away(tmp_path) -> None:
    with pytest.raises(StoreUnavailable, match=r"store\.connection"):
        plan(f"postgresql://owner:secret@/db?host={tmp_path}")


def test_numbers_and_names_are_checked() -> None:
    assert [migration.number for migration in shipped()] == sorted(migration.number for migration in shipped())
    assert all(migrate.NAME.match(migration.name) for migration in shipped())
