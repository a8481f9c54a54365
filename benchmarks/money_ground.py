"""What a scene stands on: one PostgreSQL, servers as real processes that share it, and the mock provider."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shipworthy.adapters.embedded.postgres import EmbeddedPostgres
from shipworthy.adapters.embedded.postgres_passwords import LOGIN, OWNER, PORT, SUPERUSER, read_passwords
from shipworthy.adapters.store import migrate
from shipworthy.bootstrap import development_issuer, read_manifest
from shipworthy.model.op import uuid7
from shipworthy.ports import TokenWish

HERE = Path(__file__).parent
MANIFEST = Template((HERE / "money.yaml").read_text())
TENANT = "acme"
TEAMS = ("a", "b")
READY_S = 60.0
STOP_S = 60.0
TOKEN_S = 86_400
TOKEN_AGE_S = 4 * 3_600
"""Older and longer-lived than any step of the clock is wide."""


class Database:
    """A PostgreSQL of our own; ``store`` makes a migrated database on it."""

    def __init__(self, base: Path) -> None:
        self._launcher = EmbeddedPostgres(base / "store", base=base)
        cluster = self._launcher.start()
        home = cluster.data_path.parent
        kept = read_passwords(home / "passwords.json")
        assert kept is not None
        self.pid = cluster.pid
        self.log = home / "server.log"
        self._passwords = {OWNER: kept.owner, LOGIN: kept.login, SUPERUSER: kept.superuser}
        self._socket = str(conninfo_to_dict(cluster.url)["host"])

    def url(self, role: str, database: str) -> str:
        place = urlencode({"host": self._socket, "port": PORT})
        return f"postgresql://{role}:{self._passwords[role]}@/{database}?{place}"

    def superuser(self, database: str) -> str:
        return make_conninfo(self.url(SUPERUSER, database), options="-c search_path=shipworthy", connect_timeout=3)

    def store(self) -> str:
        """The name of a new database with today's schema."""
        name = f"money_{secrets.token_hex(4)}"
        with psycopg.connect(self.superuser("postgres"), autocommit=True) as conn:
            conn.execute(f"create database {name} template shipworthy owner {OWNER}".encode())
        migrate.apply(self.url(OWNER, name), LOGIN)
        return name

    def drop(self, name: str) -> None:
        with psycopg.connect(self.superuser("postgres"), autocommit=True) as conn:
            conn.execute(f"drop database if exists {name} with (force)".encode())

    def restart(self, how: signal.Signals) -> float:
        """SIGQUIT is an immediate shutdown, with a recovery after it; SIGINT a fast one. Returns how long it was away."""
        began = time.monotonic()
        os.kill(self.pid, how)
        while self._launcher.alive():
            time.sleep(0.02)
        self.pid = self._launcher.start().pid
        return time.monotonic() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """All its processes stand still: connections hang, new ones too."""
        held = [self.pid, *children(self.pid)]
        for pid in held:
            tell(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in held:
                tell(pid, signal.SIGCONT)

    def stop(self) -> None:
        self._launcher.stop()


class Clock:
    """The wall clock of every server: ``step`` sets all of them at once."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.write_bytes(bytes(8))
        with place.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)

    def step(self, seconds: float) -> None:
        struct.pack_into("<q", self._shared, 0, int(seconds * 1e9))

    def environ(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(HERE / "money_clock"), os.environ.get("PYTHONPATH", ""))))
        return {"PYTHONPATH": path, "MONEY_CLOCK": str(self.place)}


class Server:
    """One supervisor with its workers; ``port`` is 0 until ``await_ready`` returned."""

    def __init__(self, config: Path, environ: dict[str, str]) -> None:
        self._out = config.with_suffix(".out")
        self.log = config.with_suffix(".log")
        with self._out.open("wb") as out, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shipworthy", "serve", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=log, env={**os.environ, **environ},
            )  # fmt: skip
        self.port = 0

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self._out.read_text().splitlines():
                if line.startswith("serving at "):
                    self.port = int(line.split()[2].removesuffix("/v1").rpartition(":")[2])
                    return
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        raise SystemExit(f"the server did not come up:\n{self.log.read_text(errors='replace')}")

    def workers(self) -> list[int]:
        return [
            pid for each in children(self.process.pid) for pid in children(each) if name(pid).startswith("sw worker")
        ]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Caps:
    """What may be spent, in USD: by the tenant, by one team of it, by one use case. The narrow ones are spent first."""

    tenant: float
    team: float
    use_case: float

    @classmethod
    def of(cls, tenant: float) -> Caps:
        return cls(tenant, tenant * 0.15, tenant * 0.3)


@dataclass
class Ground:
    """A scene's servers, which have made their rows in ``database``."""

    database: Database
    store: str
    servers: list[Server]
    tokens: dict[str, str]  # by team
    clock: Clock
    upstream_log: Path

    def workers(self) -> list[int]:
        return [pid for server in self.servers for pid in server.workers()]


@contextmanager
def upstream(log: Path, latency_s: tuple[float, float], lies_percent: int) -> Iterator[int]:
    said = [str(log), *map(str, latency_s), str(lies_percent)]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "money_upstream.py"), *said], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@contextmanager
def ground(
    folder: Path, database: Database, *, servers: int, workers: int, mode: str, caps: Caps, port: int, log: Path
) -> Iterator[Ground]:
    """``servers`` of ``workers`` each over a fresh store, stopped and dropped afterwards."""
    store = database.store()
    clock = Clock(folder / "clock")
    environ = clock.environ() | {
        "MONEY_STORE": database.url(LOGIN, store),
        "MONEY_STORE_OWNER": database.url(OWNER, store),
    }
    running: list[Server] = []
    with contextlib.ExitStack() as stack:
        stack.callback(database.drop, store)
        for number in range(servers):
            config = folder / f"server-{number + 1}.yaml"
            config.write_text(
                MANIFEST.substitute(
                    port=port, workers=workers, durability=mode,
                    tenant=f"{caps.tenant:.9f}", team=f"{caps.team:.9f}", use_case=f"{caps.use_case:.9f}",
                )
            )  # fmt: skip
            running.append(Server(config, environ))
            stack.callback(running[-1].stop)
            await_file(folder / "keys.json")  # the first server makes it, the others use it
        for server in running:
            server.await_ready()
        os.environ.update(environ)
        tokens = {team: token(folder / "server-1.yaml", team) for team in TEAMS}
        yield Ground(database, store, running, tokens, clock, log)


def await_file(path: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def token(config: Path, team: str) -> str:
    issuer = development_issuer(read_manifest(config))
    assert issuer is not None
    wish = TokenWish(tenant=TENANT, subject=f"service-{team}", groups=(team,), ttl_s=TOKEN_S)
    minted_ns = time.time_ns() - TOKEN_AGE_S * 1_000_000_000
    return issuer.mint(wish, uuid7(minted_ns), minted_ns)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def port_owners(pids: Sequence[int]) -> dict[int, int]:
    """The local ports of TCP connections, and which of the processes has each."""
    owners: dict[str, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    owners[os.readlink(entry).removeprefix("socket:[").removesuffix("]")] = pid
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(line[1].rpartition(":")[2], 16): owners[line[9]] for line in lines if line[9] in owners}


def tell(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
