"""Promise: one command brings up a private database, the next one finds it, and nobody else gets in."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from shipworthy.adapters.embedded.postgres import attach
from shipworthy.adapters.embedded.postgres_errors import WrongCredentials
from shipworthy.adapters.embedded.postgres_server import LOG_BYTES_MAX

from .conftest import ask, fill, socket_dir


def modes(*places: Path) -> list[int]:
    return [place.stat().st_mode for place in places]


def test_cold_then_warm_keeps_rows_and_is_quick(stage, store, record_property):
    """A first start makes the database, a second finds its rows in half a second or so."""
    began = time.monotonic()
    first = stage.embedded(store)
    cluster = first.start()
    record_property("cold_s", time.monotonic() - began)
    assert first.start() == cluster, "starting what runs is no work"
    fill(cluster, 1000)
    first.stop()
    assert not first.alive()
    assert attach(store, base=stage.base) is None

    began = time.monotonic()
    cluster = stage.embedded(store).start()
    warm = time.monotonic() - began
    record_property("warm_s", warm)
    assert ask(cluster.url, "SELECT count(*) FROM kept") == [(1000,)]
    assert warm < 2.0, "0.12 s on an idle machine; the bound is for a busy one"


def test_roles_have_what_they_need_and_nothing_else(grown):
    """Isolation is the product: neither login bypasses row-level security, and the application owns nothing."""
    cluster = grown.embedded().start()
    flags = "rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin"
    mine = f"SELECT {flags} FROM pg_roles WHERE rolname = current_user"
    assert ask(cluster.url, mine) == [(False, False, False, False, False, True)]
    assert ask(cluster.migrate_url, mine) == [(False, False, True, False, False, True)]
    owner = "SELECT pg_get_userbyid(datdba), datname FROM pg_database WHERE datname = current_database()"
    assert ask(cluster.url, owner) == [("shipworthy_owner", "shipworthy")]
    assert ask(cluster.url, "SELECT '[1,2]'::vector <-> '[1,4]'::vector") == [(2.0,)]
    settings = (
        "SELECT current_setting('fsync'), current_setting('listen_addresses'), current_setting('server_encoding')"
    )
    assert ask(cluster.url, settings) == [("on", "", "UTF8")]
    assert ask(cluster.url, "SELECT 'ä' < 'b', upper('ä')") == [(False, "Ä")], (
        "C.UTF-8: by code point, but it knows letters"
    )
    ask(cluster.migrate_url, "CREATE ROLE shipworthy_recorder", "GRANT shipworthy_recorder TO shipworthy")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(cluster.url, "CREATE TABLE mine (n int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        ask(cluster.url.replace("@/shipworthy?", "@/postgres?"), "SELECT 1")


def test_scram_refuses_a_wrong_and_a_missing_password(grown):
    """Being able to reach the socket isn't enough: every role, the superuser too, needs its password."""
    cluster = grown.embedded().start()
    password = cluster.url.split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(cluster.url.replace(password, "wrong-" + password), "SELECT 1")
    for role in ("shipworthy", "shipworthy_owner", "postgres"):
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            ask(cluster.url.replace(f"shipworthy:{password}@", f"{role}@"), "SELECT 1")
    assert ask(cluster.migrate_url, "SHOW password_encryption") == [("scram-sha-256",)]


def test_nothing_of_the_users_is_opened_and_secrets_stay_secret(stage, tmp_path):
    """No directory of the user's changes its mode; passwords are in no argument list, no repr and no log."""
    outer = tmp_path / "outer"
    outer.mkdir(mode=0o700)
    store = outer / ".shipworthy"
    store.mkdir(mode=0o750)
    before = modes(tmp_path, outer, store)
    cluster = stage.embedded(store).start()
    assert modes(tmp_path, outer, store) == before
    home = cluster.data_path.parent
    assert stat.S_IMODE((home / "passwords.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(cluster.data_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_dir(cluster).stat().st_mode) == 0o700
    assert (home / "passwords.json").stat().st_uid == os.geteuid()
    if os.geteuid() == 0:
        assert cluster.data_path.stat().st_uid != 0
        assert not cluster.data_path.is_relative_to(store)
    passwords = [url.split(":")[2].split("@")[0] for url in (cluster.url, cluster.migrate_url)]
    seen = subprocess.run(["ps", "-eo", "args", "ww"], capture_output=True, text=True, check=True).stdout
    seen += repr(cluster) + (home / "server.log").read_text()
    assert not any(password in seen for password in passwords)


def test_attach_finds_the_running_database_without_owning_it(stage, store):
    """A command line tool reads while the server holds the store; before and after there's nothing to attach to."""
    assert attach(store, base=stage.base) is None
    assert not store.exists(), "looking makes nothing"
    launcher = stage.embedded(store)
    cluster = launcher.start()
    seen = attach(store, base=stage.base)
    assert seen == cluster
    assert seen is not None
    assert ask(seen.url, "SELECT 1") == [(1,)]
    launcher.stop()
    assert attach(store, base=stage.base) is None


def test_the_server_is_in_a_session_of_its_own(grown):
    """Ctrl-C reaches the process group of the terminal, and the database must outlive the drain."""
    cluster = grown.embedded().start()
    assert os.getsid(cluster.pid) == cluster.pid != os.getsid(0)


@pytest.mark.parametrize(
    ("folders", "inside"), [("d" * 60 + "/" + "e" * 60, False), ("a, b", False), ("ä' %=&?#\\", True)]
)
def test_a_path_thats_unfit_for_a_socket_still_works(stage, base, tmp_path, folders, inside):
    """A socket's path may have 107 bytes and no comma; a store's path may have more, and any letters."""
    deep = (base if os.geteuid() == 0 else tmp_path) / folders
    launcher = stage.embedded(deep / ".shipworthy", base=deep)
    cluster = launcher.start()
    place = socket_dir(cluster)
    assert ask(cluster.url, "SELECT 1") == [(1,)]
    assert place.is_relative_to(deep) == inside or os.geteuid() != 0, "as an ordinary account the path is longer still"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert attach(deep / ".shipworthy", base=deep) == cluster
    launcher.stop()
    assert not (place / ".s.PGSQL.5432").exists()
    assert place.exists() == place.is_relative_to(deep), "what was made elsewhere is removed"


def test_lost_passwords_are_replaced_and_wrong_ones_refused(grown):
    """Whoever owns the files may set new passwords; a file that isn't the database's is said to be wrong."""
    launcher = grown.embedded()
    cluster = launcher.start()
    passwords = cluster.data_path.parent / "passwords.json"
    kept = passwords.read_text()
    launcher.stop()

    passwords.unlink()
    renewed = launcher.start()
    assert renewed.url != cluster.url
    assert ask(renewed.url, "SELECT count(*) FROM kept") == [(10,)]
    launcher.stop()

    passwords.write_text(kept)
    with pytest.raises(WrongCredentials, match="aren't those of the database"):
        launcher.start()
    assert not (cluster.data_path / "postmaster.pid").exists(), "a failed start leaves no server behind"
    passwords.write_text("{}")
    with pytest.raises(WrongCredentials, match=r"passwords\.json"):
        launcher.start()
    passwords.unlink()


def test_new_programs_look_after_an_old_database(grown):
    """A new wheel of the same major version adapts the database once, then starts it."""
    launcher = grown.embedded()
    cluster = launcher.start()
    launcher.stop()
    settled = cluster.data_path.parent / "settled"
    now = settled.read_text()
    settled.write_text("an older one")
    said: list[str] = []
    again = grown.embedded(progress=said.append).start()
    assert any("adapting" in line for line in said)
    assert settled.read_text() == now
    assert ask(again.url, "SELECT count(*) FROM kept") == [(10,)]


def test_the_log_is_bounded_while_the_server_writes_it(grown):
    """alive() cuts a log that grew too long, and the server goes on writing at its new end."""
    launcher = grown.embedded()
    cluster = launcher.start()
    log = cluster.data_path.parent / "server.log"
    with log.open("ab") as file:
        file.write(b"y" * LOG_BYTES_MAX)
    assert launcher.alive()
    assert log.stat().st_size < 1000
    with pytest.raises(psycopg.errors.UndefinedTable):
        ask(cluster.url, "SELECT * FROM a_table_with_a_name_of_its_own")
    content = log.read_bytes()
    assert b"a_table_with_a_name_of_its_own" in content
    assert b"STATEMENT" not in content, "statements may hold what people wrote"
    assert b"\0" not in content
