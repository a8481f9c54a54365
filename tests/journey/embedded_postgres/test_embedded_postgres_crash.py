"""Promise: never a lost byte of what was committed, whoever was killed, and never two servers on one directory."""

from __future__ import annotations

import json
import os
import pwd
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from shipworthy.adapters.embedded import postgres
from shipworthy.adapters.embedded.postgres import attach
from shipworthy.adapters.embedded.postgres_errors import InUse
from shipworthy.adapters.embedded.postgres_processes import look

from .conftest import answer, ask, fill, kill, socket_dir, wait_gone

KILLS = 5


def test_kill_9_keeps_every_committed_row_and_no_other(stage, store):
    """The server is killed with rows committed and rows not yet committed; the next start has exactly the former."""
    launcher = stage.embedded(store)
    cluster = launcher.start()
    fill(cluster, 20_000)
    open_transaction = psycopg.connect(cluster.url)
    open_transaction.execute("INSERT INTO kept VALUES (-1, 'not committed')")
    kill(cluster.pid)
    wait_gone(cluster.pid)
    assert not launcher.alive()
    assert attach(store, base=stage.base) is None
    open_transaction.close()

    recovered = launcher.start()
    assert recovered.pid != cluster.pid
    assert launcher.alive()
    assert ask(recovered.url, "SELECT count(*), min(n), max(n) FROM kept") == [(20_000, 1, 20_000)]
    ask(recovered.url, "INSERT INTO kept VALUES (20001, 'after')")
    kill(recovered.pid)
    wait_gone(recovered.pid)
    again = launcher.start()
    assert ask(again.url, "SELECT count(*) FROM kept") == [(20_001,)]


def test_rows_survive_kills_at_any_moment(grown):
    """While a writer commits as fast as it can, the server is killed again and again: no acknowledged row is ever lost."""
    launcher = grown.embedded()
    acknowledged: list[int] = []
    pause = random.Random(7)
    for _ in range(KILLS):
        cluster = launcher.start()
        killer = threading.Timer(pause.uniform(0.01, 0.15), kill, [cluster.pid])
        killer.start()
        with suppress(psycopg.OperationalError), psycopg.connect(cluster.url, autocommit=True) as connection:
            while True:
                connection.execute("INSERT INTO kept VALUES (%s, 'w')", (1_000_000 + len(acknowledged),))
                acknowledged.append(1_000_000 + len(acknowledged))
        killer.join()
        wait_gone(cluster.pid)
        ((following,),) = ask(launcher.start().url, "SELECT count(*) FROM kept WHERE text = 'w'")
        assert len(acknowledged) <= following <= len(acknowledged) + 1, "the last may be there without an answer"
        acknowledged = list(range(1_000_000, 1_000_000 + following))
    assert len(acknowledged) > KILLS
    url = launcher.start().migrate_url
    assert ask(url, "SELECT n FROM kept WHERE text = 'w' ORDER BY n") == [(number,) for number in acknowledged]
    ask(url, "DELETE FROM kept WHERE text = 'w'")


def test_a_killed_backend_doesnt_end_the_server(grown):
    """One process of the server is killed: PostgreSQL recovers by itself, under the same pid."""
    launcher = grown.embedded()
    cluster = launcher.start()
    connection = psycopg.connect(cluster.url)
    kill(connection.info.backend_pid)
    wait_gone(connection.info.backend_pid)
    connection.close()
    assert launcher.alive()
    again = launcher.start()
    assert again.pid == cluster.pid
    assert ask(again.url, "SELECT count(*) FROM kept") == [(10,)]


def test_a_zombie_postmaster_is_dead(grown):
    """Its parent lives and never reaps it, so that its pid still exists: it's dead all the same."""
    parent = grown.holder("abandon")
    first = answer(parent)
    zombie = first["pid"]
    kill(zombie)
    wait_gone(zombie)
    assert (Path("/proc") / str(zombie)).exists(), "it's a zombie"
    os.kill(zombie, 0)  # which is what fools others
    assert grown.attach() is None
    cluster = grown.embedded().start()
    assert cluster.pid != zombie
    assert ask(cluster.url, "SELECT count(*) FROM kept") == [(10,)]


def test_a_reused_pid_isnt_taken_for_the_server(grown):
    """After a crash the pid in postmaster.pid may belong to anybody, even to the same account in the same directory."""
    launcher = grown.embedded()
    cluster = launcher.start()
    kill(cluster.pid)
    wait_gone(cluster.pid)
    owner = cluster.data_path.stat().st_uid
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=owner if os.geteuid() == 0 else None, cwd=cluster.data_path)
    try:
        for stale in (cluster.data_path / "postmaster.pid", socket_dir(cluster) / ".s.PGSQL.5432.lock"):
            lines = stale.read_text().splitlines()
            stale.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert grown.attach() is None
        again = launcher.start()
        assert ask(again.url, "SELECT count(*) FROM kept") == [(10,)]
        assert stranger.poll() is None, "and the stranger was left alone"
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "garbage\n", "999999999999999999999\n", "\0\0\0"])
def test_a_garbled_pid_file_is_cleared_away(grown, content):
    """A full disk or a power cut can leave anything in postmaster.pid."""
    launcher = grown.embedded()
    cluster = launcher.start()
    launcher.stop()
    pid_file = cluster.data_path / "postmaster.pid"
    pid_file.write_text(content)
    if os.geteuid() == 0:
        os.chown(pid_file, cluster.data_path.stat().st_uid, -1)
    assert ask(launcher.start().url, "SELECT 1") == [(1,)]


def test_orphans_of_a_dead_postmaster_are_ended_first(grown, monkeypatch):
    """A backend that doesn't notice its postmaster's death still has the shared memory: nothing starts beside it."""
    monkeypatch.setattr(postgres, "ORPHAN_SECONDS", 0.3)
    monkeypatch.setattr(postgres, "HARD_SECONDS", 0.3)
    launcher = grown.embedded()
    cluster = launcher.start()
    connection = psycopg.connect(cluster.url)
    orphan = connection.info.backend_pid
    os.kill(orphan, signal.SIGSTOP)
    kill(cluster.pid)
    wait_gone(cluster.pid)
    assert look(orphan) is not None
    again = launcher.start()
    assert look(orphan) is None
    assert ask(again.url, "SELECT count(*) FROM kept") == [(10,)]
    connection.close()


def test_a_missing_pid_file_doesnt_hide_a_running_server(grown):
    """Somebody deleted postmaster.pid: the server that lives is ended before another starts."""
    launcher = grown.embedded()
    cluster = launcher.start()
    (cluster.data_path / "postmaster.pid").unlink()
    again = launcher.start()
    assert look(cluster.pid) is None
    assert again.pid != cluster.pid
    assert ask(again.url, "SELECT count(*) FROM kept") == [(10,)]


def test_the_second_asker_is_told_who_has_it(stage, store):
    """Two servers on one store: the second gets a clear error with the holder's pid, and changes nothing."""
    holder = stage.holder(store)
    running = answer(holder)
    with pytest.raises(InUse) as refused:
        stage.embedded(store).start()
    assert refused.value.code == "embedded.in_use"
    assert f"pid {holder.pid}" in refused.value.message
    seen = attach(store, base=stage.base)
    assert seen is not None
    assert seen.pid == running["pid"]
    holder.communicate("")
    assert stage.embedded(store).start().pid != running["pid"]


def test_of_two_that_begin_at_once_one_wins(stage, store):
    """A cold start in two processes at the same moment makes one database."""
    holders = [stage.holder(store), stage.holder(store)]
    answers = [answer(holder) for holder in holders]
    assert sorted("pid" in said for said in answers) == [False, True]
    assert [said["code"] for said in answers if "code" in said] == ["embedded.in_use"]
    url = next(str(said["url"]) for said in answers if "url" in said)
    assert ask(url, "SELECT 1") == [(1,)]


def test_a_server_that_outlived_its_holder_is_adopted(grown):
    """kill -9 of the holder: the database goes on, can be read, is adopted by the next holder, and is ended by it."""
    holder = grown.holder()
    orphaned = answer(holder)["pid"]
    kill(holder.pid)
    holder.wait()
    seen = grown.attach()
    assert seen is not None
    said: list[str] = []
    launcher = grown.embedded(progress=said.append)
    cluster = launcher.start()
    assert cluster.pid == orphaned
    assert any(f"pid {orphaned}" in line for line in said)
    assert launcher.alive()
    assert ask(cluster.url, "SELECT count(*) FROM kept") == [(10,)]
    launcher.stop()
    assert look(cluster.pid) is None


def test_an_outdated_server_is_restarted_not_adopted(grown):
    """A server that runs with another Shipworthy's settings is stopped in order and started with ours."""
    holder = grown.holder()
    orphaned = answer(holder)
    kill(holder.pid)
    holder.wait()
    (Path(str(orphaned["data"])).parent / "settled").write_text("another")
    cluster = grown.embedded().start()
    assert cluster.pid != orphaned["pid"]
    assert look(int(str(orphaned["pid"]))) is None
    assert ask(cluster.url, "SELECT count(*) FROM kept") == [(10,)]


def test_a_server_that_hangs_is_ended_by_stop(grown, monkeypatch):
    """Fast shutdown, then immediate, then kill: stop() ends, and the next start recovers."""
    monkeypatch.setattr(postgres, "HARD_SECONDS", 0.3)
    launcher = grown.embedded()
    cluster = launcher.start()
    os.kill(cluster.pid, signal.SIGSTOP)
    launcher.stop(timeout_s=0.3)
    assert look(cluster.pid) is None
    assert ask(launcher.start().url, "SELECT count(*) FROM kept") == [(10,)]


def test_an_interrupted_creation_leaves_no_half_database(stage, store):
    """kill -9 amid initdb: what lies there isn't called a database, and the next start makes a whole one."""
    holder = stage.holder(store)
    assert holder.stdout is not None
    said = ""
    while "creating" not in said:
        said = json.loads(holder.stdout.readline()).get("said", "")
    time.sleep(0.1)
    kill(holder.pid)
    holder.wait()
    assert attach(store, base=stage.base) is None
    cluster = stage.embedded(store).start()
    assert ask(cluster.url, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == [("vector",)]
    assert not list(cluster.data_path.parent.glob("password.new-*"))


def test_a_server_started_by_hand_is_not_touched(grown):
    """An operator runs PostgreSQL on the directory: it's named and left alone."""
    launcher = grown.embedded()
    cluster = launcher.start()
    program = Path(f"/proc/{cluster.pid}/cmdline").read_text().split("\0")[0]
    launcher.stop()
    account = pwd.getpwuid(cluster.data_path.stat().st_uid)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={cluster.data_path.parent / 'run'}"]
    by_hand = subprocess.Popen(
        [program, "-D", str(cluster.data_path), *options],
        user=account.pw_uid if os.geteuid() == 0 else None,
        cwd="/",
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while not (cluster.data_path / "postmaster.pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(InUse, match=f"pid {by_hand.pid}"):
            launcher.start()
        assert by_hand.poll() is None
    finally:
        by_hand.terminate()
        by_hand.wait(20)
