"""An embedded PostgreSQL: made, started, recovered, shared and stopped by Shipworthy itself.

Why not the wheel's own launcher? As root it creates accounts and opens every parent directory; it trusts every local
account; it hands out a superuser, for whom row-level security doesn't exist; and it takes a zombie for a live server.

A start, top to bottom: find the programs and the home, and be its only holder; make the database when there is none;
adopt the server that outlived an earlier holder, or clear away what a dead one left; start, and believe it only when it
answers SQL as the login role.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shipworthy.adapters.embedded.postgres_account import is_root
from shipworthy.adapters.embedded.postgres_binaries import Runtime, find_wheel, private_copy
from shipworthy.adapters.embedded.postgres_creation import create, is_settled, look_after, sweep
from shipworthy.adapters.embedded.postgres_errors import (
    EmbeddedError,
    InUse,
    NotStarted,
    WrongCredentials,
    failed,
)
from shipworthy.adapters.embedded.postgres_home import BASE, Home, find_home, open_home, require_version
from shipworthy.adapters.embedded.postgres_locks import Lock, hold, take_within
from shipworthy.adapters.embedded.postgres_passwords import FORGET_HINT, LOGIN, OWNER, Passwords, read_passwords, url
from shipworthy.adapters.embedded.postgres_processes import (
    PidFile,
    Process,
    look,
    members,
    postmaster,
    read_pid_file,
    reap,
    wait_until,
)
from shipworthy.adapters.embedded.postgres_server import (
    bound_log,
    end_orphans,
    is_ours,
    is_same_command,
    last_lines,
    launch,
    ping,
    remove_remains,
    shut_down,
    traces,
)

START_SECONDS_MAX = 600.0  # a long crash recovery is no reason to give up; it says every few seconds that it goes on
ADOPT_SECONDS_MAX = 30.0
STOP_SECONDS = 30.0
ORPHAN_SECONDS = 5.0
HARD_SECONDS = 5.0
PROGRESS_SECONDS = 2.0


@dataclass(frozen=True)
class Cluster:
    """A running embedded PostgreSQL. The URLs hold passwords, so they aren't part of its repr."""

    url: str = field(repr=False)  # the application: LOGIN and nothing else
    migrate_url: str = field(repr=False)  # the owner of the database: migrations
    pid: int
    data_path: Path


def _say_nothing(_: str) -> None:
    return


def attach(path: Path, *, base: Path = BASE) -> Cluster | None:
    """The running database of the store at ``path``, without owning it; None when none is running and ready."""
    home = find_home(path, base)
    running = postmaster(home) if home is not None else None
    if home is None or running is None:
        return None
    passwords = read_passwords(home.passwords)
    if passwords is None:
        raise WrongCredentials(f"{home.passwords} is missing.", "Restart the server: it makes new passwords.")
    return _ready(home, find_wheel(), running.pid, passwords)


def _ready(home: Home, runtime: Runtime, pid: int, passwords: Passwords) -> Cluster | None:
    """The cluster if it answers SQL now; ``WrongCredentials`` when it answers that the password is wrong."""
    said = read_pid_file(home.data)
    if said is None or said.pid != pid or said.status != "ready" or said.socket_dir is None:
        return None
    trouble = ping(runtime, said.socket_dir, passwords.login)
    if "password authentication failed" in trouble:
        raise WrongCredentials(f"The passwords in {home.passwords} aren't those of the database.", FORGET_HINT)
    if trouble:
        return None
    return Cluster(
        url=url(LOGIN, passwords.login, said.socket_dir),
        migrate_url=url(OWNER, passwords.owner, said.socket_dir),
        pid=pid,
        data_path=home.data,
    )


class EmbeddedPostgres:
    """The holder of one embedded database. One caller at a time; ``alive`` is cheap and meant to be asked often."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        progress: Callable[[str], None] = _say_nothing,
        base: Path = BASE,
        account: str | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._progress = progress
        self._base = base
        self._account = account
        self._home: Home | None = None
        self._lock: Lock | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        self._cluster: Cluster | None = None

    def start(self) -> Cluster:
        """The running database: made, adopted, recovered or started; an ``EmbeddedError`` says why not."""
        if not Path("/proc/self/status").exists():
            raise EmbeddedError("The embedded PostgreSQL needs Linux and its /proc.", "Set store.url to a PostgreSQL.")
        runtime = find_wheel()
        home = self._home or open_home(self._path, self._base, self._account, self._progress)
        if is_root():
            runtime = private_copy(runtime, self._base, self._progress)
        if self._lock is None:
            self._lock = hold(home.root / "holder.lock", home.root)
        self._home = home
        try:
            # A server of ours that runs already is adopted like any other: it must answer.
            self._cluster = self._bring_up(home, runtime)
        except BaseException:
            self._give_up(home)
            raise
        return self._cluster

    def stop(self, timeout_s: float = STOP_SECONDS) -> None:
        """End the server: everything written when it can be in time, recovered by the next start when not."""
        if self._lock is None or self._home is None:
            return
        said = read_pid_file(self._home.data)
        running = postmaster(self._home)
        if running is not None:
            said = said or traces(running)
            self._shut_down(self._home, running, timeout_s)
        self._clear(self._home, said)
        self._let_go()

    def alive(self) -> bool:
        """Whether the server process lives. Also keeps the server's log within its bound."""
        if self._cluster is None or self._home is None:
            return False
        if self._child is not None and self._child.poll() is not None:
            return False
        with suppress(OSError):  # a full disk is no reason to call the server dead
            bound_log(self._home.log)
        running = postmaster(self._home)
        return running is not None and running.pid == self._cluster.pid

    def _bring_up(self, home: Home, runtime: Runtime) -> Cluster:
        sweep(home)
        if not home.data.exists():
            create(home, runtime, self._progress)
        require_version(home, runtime.major)
        said = read_pid_file(home.data)
        running = postmaster(home)
        if running is not None:
            adopted = self._adopt(home, runtime, running)
            if adopted is not None:
                return adopted
            said = said or traces(running)
            self._shut_down(home, running, STOP_SECONDS)
        self._clear(home, said)
        look_after(home, runtime, self._progress)
        return self._launch(home, runtime)

    def _adopt(self, home: Home, runtime: Runtime, running: Process) -> Cluster | None:
        """The server that outlived its holder, if it's the one that we'd start and it answers; else None."""
        if not is_ours(running, home):
            raise InUse(
                f"A PostgreSQL that Shipworthy didn't start runs on {home.data} as pid {running.pid}.",
                "Stop it, then start again.",
            )
        passwords = read_passwords(home.passwords)
        ours = is_settled(home, runtime) and is_same_command(running, home, runtime)
        if passwords is None or not ours or read_pid_file(home.data) is None:
            self._progress(f"restarting PostgreSQL (pid {running.pid}), which isn't as this Shipworthy wants it")
            return None
        found: list[Cluster] = []

        def settled() -> bool:
            cluster = _ready(home, runtime, running.pid, passwords)
            found.extend([cluster] if cluster else [])
            return cluster is not None or postmaster(home) is None

        wait_until(settled, ADOPT_SECONDS_MAX, self._clock)
        if found:
            self._progress(f"using the PostgreSQL that is running (pid {running.pid})")
        return found[0] if found else None

    def _launch(self, home: Home, runtime: Runtime) -> Cluster:
        lock = self._take_server_lock(home)
        passwords = read_passwords(home.passwords)
        assert passwords is not None, "look_after makes them"
        self._progress("starting PostgreSQL")
        begun = home.log.stat().st_size if home.log.exists() else 0
        try:
            self._socket_dir = home.make_socket_dir()
            self._child = launch(home, runtime, self._socket_dir, lock)
        finally:
            lock.release()  # from here on the server and its children hold it
        return self._await(home, runtime, self._child, passwords, begun)

    def _await(
        self, home: Home, runtime: Runtime, child: subprocess.Popen[bytes], passwords: Passwords, begun: int
    ) -> Cluster:
        found: list[Cluster] = []
        began = said = self._clock()

        def settled() -> bool:
            nonlocal said
            if child.poll() is not None:
                return True
            if self._clock() - said >= PROGRESS_SECONDS:
                said = self._clock()
                self._progress(f"PostgreSQL is starting or recovering from a crash ({said - began:.0f} s)")
            cluster = _ready(home, runtime, child.pid, passwords)
            found.extend([cluster] if cluster else [])
            return cluster is not None

        wait_until(settled, START_SECONDS_MAX, self._clock)
        if found:
            return found[0]
        words = last_lines(home.log, begun)
        if child.poll() is not None:
            ended = f"PostgreSQL ended while it started (exit code {child.returncode})"
            raise failed(home.log, ended, words, f"The whole log is in {home.log}.")
        waited = f"PostgreSQL wasn't ready after {START_SECONDS_MAX:.0f} s. Its last lines:\n{words}"
        raise NotStarted(waited, f"The whole log is in {home.log}.")

    def _shut_down(self, home: Home, running: Process, timeout_s: float) -> None:
        if not shut_down(running, home, fast_s=timeout_s, hard_s=HARD_SECONDS, clock=self._clock):
            raise InUse(
                f"PostgreSQL (pid {running.pid}) on {home.data} can't be ended.", "See what it waits for: a disk?"
            )

    def _clear(self, home: Home, said: PidFile | None) -> None:
        """Make sure that nothing lives on the data directory, then remove what a dead server left."""
        if self._child is not None:
            self._child.poll()
        if said is not None:
            reap(said.pid)
        if not end_orphans(home, grace_s=ORPHAN_SECONDS, hard_s=HARD_SECONDS, clock=self._clock):
            pids = ", ".join(str(process.pid) for process in members(home))
            raise InUse(f"Processes of a dead PostgreSQL live on {home.data}: {pids}.", "End them, then start again.")
        lock = self._take_server_lock(home)
        try:
            remove_remains(home, said.socket_dir if said is not None else None)
        finally:
            lock.release()

    def _take_server_lock(self, home: Home) -> Lock:
        lock = take_within(home.root / "server.lock", HARD_SECONDS, self._clock)
        if lock is None:
            raise InUse(
                f"Something lives on {home.data} that can't be seen from here, in another container perhaps.",
                "Stop it, then start again.",
            )
        return lock

    def _give_up(self, home: Home) -> None:
        """After a failed start: what we launched doesn't stay behind; what was running before does."""
        try:
            if self._child is not None:
                with suppress(EmbeddedError):  # the reason of the failed start is what people need to read
                    self._take_back(home, self._child)
        finally:
            self._let_go()

    def _take_back(self, home: Home, child: subprocess.Popen[bytes]) -> None:
        process = look(child.pid) if child.poll() is None else None
        if process is not None:
            shut_down(process, home, fast_s=HARD_SECONDS, hard_s=HARD_SECONDS, clock=self._clock)
            child.poll()
        lock = take_within(home.root / "server.lock", HARD_SECONDS, self._clock)
        if lock is not None:
            remove_remains(home, self._socket_dir)
            lock.release()

    def _let_go(self) -> None:
        self._cluster = None
        self._child = None
        self._socket_dir = None
        self._home = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
