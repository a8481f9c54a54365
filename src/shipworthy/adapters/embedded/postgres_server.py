"""The server process: how it's started, when it's ready, how it ends, what it said."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shipworthy.adapters.embedded.postgres_account import ENVIRONMENT, cannot_run
from shipworthy.adapters.embedded.postgres_binaries import Runtime
from shipworthy.adapters.embedded.postgres_errors import told
from shipworthy.adapters.embedded.postgres_files import write_private
from shipworthy.adapters.embedded.postgres_home import SOCKET_NAME, TEMPORARY_PREFIX, Home
from shipworthy.adapters.embedded.postgres_locks import Lock
from shipworthy.adapters.embedded.postgres_passwords import DATABASE, LOGIN, PORT
from shipworthy.adapters.embedded.postgres_processes import PidFile, Process, end, look, members, wait_until

HBA = "# Written by Shipworthy at every start.\nlocal all all scram-sha-256\n"
LOG_BYTES_MAX = 4 << 20
LOG_BYTES_KEPT = 1 << 20
LOG_LINES_QUOTED = 20
LOG_BYTES_QUOTED = 8192
PING_SECONDS_MAX = 5
SOCKET_OPTION = "unix_socket_directories="
# On the command line, where neither postgresql.conf nor ALTER SYSTEM can change them.
# Server messages carry no statements and no values (terse): rows and requests don't belong in a log.
SAFETY = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "full_page_writes": "on",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


def command(home: Home, runtime: Runtime, socket_dir: Path) -> list[str]:
    """The server's command line. A running server with another one was started by another Shipworthy, or by hand."""
    settings = SAFETY | {"hba_file": str(home.hba), "cluster_name": home.name}
    options = [f"{name}={value}" for name, value in settings.items()] + [f"{SOCKET_OPTION}{socket_dir}"]
    return [
        str(runtime.program("postgres")),
        *("-D", str(home.data)),
        *(part for option in options for part in ("-c", option)),
    ]


def is_same_command(process: Process, home: Home, runtime: Runtime) -> bool:
    """Whether the running server is what we'd start now; its socket's place may differ."""
    wanted = command(home, runtime, Path("/"))[:-1]
    return list(process.argv[: len(wanted)]) == wanted and len(process.argv) == len(wanted) + 1


def is_ours(process: Process, home: Home) -> bool:
    """Whether any Shipworthy started it."""
    return f"cluster_name={home.name}" in process.argv


def traces(process: Process) -> PidFile:
    """What a server's command line tells about it when its pid file is gone."""
    last = process.argv[-1]
    folder = Path(last.removeprefix(SOCKET_OPTION)) if last.startswith(SOCKET_OPTION) else None
    return PidFile(process.pid, folder, "")


def launch(home: Home, runtime: Runtime, socket_dir: Path, lock: Lock) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own: Ctrl-C in a terminal reaches us only, and we drain before stopping."""
    with told(home.root):
        bound_log(home.log)
        write_private(home.hba, HBA, mode=0o644)
        log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            command(home, runtime, socket_dir),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=ENVIRONMENT,
            cwd="/",
            umask=0o077,
            start_new_session=True,
            pass_fds=(lock.descriptor,),
            user=home.account.popen_uid,
            group=home.account.popen_gid,
            extra_groups=home.account.popen_groups,
        )
    except OSError as error:
        raise cannot_run(error, runtime.program("postgres"), home.account) from error
    finally:
        os.close(log)


def ping(runtime: Runtime, socket_dir: Path, password: str) -> str:
    """Ask the server one SQL question as the login role; empty when it answered right, else what went wrong."""
    where = {"PGHOST": str(socket_dir), "PGPORT": str(PORT), "PGUSER": LOGIN, "PGDATABASE": DATABASE}
    how = {"PGPASSWORD": password, "PGCONNECT_TIMEOUT": str(PING_SECONDS_MAX)}
    with told(runtime.client("psql")):
        try:
            done = subprocess.run(
                [str(runtime.client("psql")), "-XqAtw", "-c", "SELECT 'afloat'"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=2 * PING_SECONDS_MAX,
                env=ENVIRONMENT | where | how,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "the server didn't answer in time"
    return "" if done.returncode == 0 and done.stdout.strip() == "afloat" else done.stdout.strip() or "no answer"


def shut_down(process: Process, home: Home, *, fast_s: float, hard_s: float, clock: Callable[[], float]) -> bool:
    """Fast shutdown (clients are cut, everything is written), then immediate (the next start recovers), then kill."""

    def gone() -> bool:
        return look(process.pid) is None

    for number, seconds in ((signal.SIGINT, fast_s), (signal.SIGQUIT, hard_s), (signal.SIGKILL, hard_s)):
        end([process], home, number)
        if wait_until(gone, seconds, clock):
            return True
    return False


def end_orphans(home: Home, *, grace_s: float, hard_s: float, clock: Callable[[], float]) -> bool:
    """Children whose postmaster died leave by themselves, soon; those that don't are ended. Whether all are gone."""
    for number, seconds in ((None, grace_s), (signal.SIGQUIT, hard_s), (signal.SIGKILL, hard_s)):
        if number is not None:
            end(members(home), home, number)
        if wait_until(lambda: not members(home), seconds, clock):
            return True
    return False


def remove_remains(home: Home, socket_dir: Path | None) -> None:
    """Remove what a dead server left: its pid file and its socket. Only when nothing lives on the data directory."""
    with told(home.data):
        (home.data / "postmaster.pid").unlink(missing_ok=True)
        _remove_socket(home.run)
        # Which directory it was comes from a file that PostgreSQL's account may write: take only one of that account's.
        if socket_dir is not None and socket_dir != home.run and _is_temporary(socket_dir, home):
            _remove_socket(socket_dir)
            with suppress(OSError):
                socket_dir.rmdir()


def _is_temporary(folder: Path, home: Home) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == home.account.uid
    return ours and folder.name.startswith(TEMPORARY_PREFIX)


def _remove_socket(folder: Path) -> None:
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (folder / name).unlink(missing_ok=True)


def bound_log(log: Path) -> None:
    """Keep the end of a log that has grown too long in ``server.log.1`` and begin again; safe while it's written to."""
    try:
        if log.stat().st_size <= LOG_BYTES_MAX:
            return
    except FileNotFoundError:
        return
    write_private(log.with_name(f"{log.name}.1"), _tail(log, LOG_BYTES_KEPT))
    os.truncate(log, 0)  # the server writes in append mode: it goes on at the new end


def last_lines(log: Path, since: int) -> str:
    """The last lines that the log got since it had ``since`` bytes."""
    try:
        size = log.stat().st_size
        text = _tail(log, min(LOG_BYTES_QUOTED, max(size - since, 0)))
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-LOG_LINES_QUOTED:])


def _tail(log: Path, count: int) -> str:
    with log.open("rb") as file:
        file.seek(-min(count, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return file.read(count).decode("utf-8", errors="replace")
