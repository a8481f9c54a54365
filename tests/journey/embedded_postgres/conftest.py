"""A stage for the embedded PostgreSQL: real servers in throwaway places, all of them stopped at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest

from shipworthy.adapters.embedded.postgres import Cluster, EmbeddedPostgres, attach
from shipworthy.adapters.embedded.postgres_home import find_home
from shipworthy.adapters.embedded.postgres_processes import look, members, postmaster

HOLDER = """
import json, sys
from pathlib import Path
from urllib.parse import unquote
from shipworthy.adapters.embedded.postgres import EmbeddedPostgres
from shipworthy.adapters.embedded.postgres_errors import EmbeddedError
path, base, then = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
embedded = EmbeddedPostgres(path, base=base, progress=lambda said: print(json.dumps({"said": said}), flush=True))
try:
    cluster = embedded.start()
except EmbeddedError as error:
    print(json.dumps({"code": error.code, "message": error.message}), flush=True)
    sys.exit(3)
print(json.dumps({"pid": cluster.pid, "url": cluster.url, "data": str(cluster.data_path)}), flush=True)
if then == "abandon":  # go on living, as the postmaster's parent that never reaps it, but hold nothing any more
    embedded._lock.release()
sys.stdin.read()
embedded.stop()
"""


@dataclass
class Stage:
    """Makes launchers on one base directory and remembers them, so that none outlives the test."""

    base: Path
    paths: set[Path] = field(default_factory=set)
    launchers: list[EmbeddedPostgres] = field(default_factory=list)
    held: set[Path] = field(default_factory=set)
    holders: list[subprocess.Popen[str]] = field(default_factory=list)

    def embedded(self, path: Path, **options: object) -> EmbeddedPostgres:
        launcher = EmbeddedPostgres(path, **({"base": self.base} | options))
        self.launchers.append(launcher)
        self.paths.add(path)
        return launcher

    def holder(self, path: Path, then: str = "hold") -> subprocess.Popen[str]:
        """Another process that starts the store and holds it until its input ends."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), str(self.base), then],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
        self.holders.append(process)
        self.held.add(path)
        self.paths.add(path)
        return process

    def close(self) -> None:
        for launcher in self.launchers:
            launcher.stop()
        for process in self.holders:
            process.kill()
            process.communicate()
        for path in self.held:
            home = find_home(path, self.base)
            if home is not None and postmaster(home) is not None:  # it outlived its holder: adopt it, then stop it
                launcher = EmbeddedPostgres(path, base=self.base)
                launcher.start()
                launcher.stop()
            assert home is None or members(home) == []

    def remove(self) -> None:
        """A database takes 40 MB: pytest keeps temporary directories for a while, and there are many."""
        for path in (*self.paths, *(entry for entry in self.base.iterdir() if entry.name != "runtime")):
            shutil.rmtree(path, ignore_errors=True)


def ask(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run SQL in a connection of its own, committed."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


def fill(cluster: Cluster, count: int) -> None:
    """A table of the owner's that the login role may use, with so many committed rows."""
    ask(
        cluster.migrate_url,
        "CREATE TABLE kept (n bigint PRIMARY KEY, text text)",
        "GRANT SELECT, INSERT ON kept TO shipworthy",
        f"INSERT INTO kept SELECT n, repeat('x', 100) FROM generate_series(1, {count}) AS n",
    )


def socket_dir(cluster: Cluster) -> Path:
    return Path(unquote(cluster.url.split("host=")[1].split("&")[0]))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while look(pid) is not None:
        assert time.monotonic() < deadline, f"{pid} lives on"
        time.sleep(0.01)


def answer(process: subprocess.Popen[str]) -> dict[str, object]:
    """What a holder says once it has started or failed."""
    assert process.stdout is not None
    for line in process.stdout:
        content: dict[str, object] = json.loads(line)
        if "said" not in content:
            return content
    raise AssertionError("the holder died without a word")


def quick_place() -> str:
    """Memory where there's enough of it: forty databases of 40 MB are made and removed, and a killed process loses nothing
    in either place."""
    memory = "/dev/shm"
    return memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > 4 << 30 else "/var/tmp"


@pytest.fixture(scope="session")
def runtime() -> Iterator[Path]:
    """Where root's private copy of PostgreSQL goes: a place that any account may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="sw-pg-", dir=quick_place()))
    folder.chmod(0o755)
    (folder / "runtime").mkdir()
    yield folder / "runtime"
    shutil.rmtree(folder)


@pytest.fixture
def base(runtime: Path) -> Iterator[Path]:
    """Where root's databases go; the copy of PostgreSQL is shared between tests."""
    folder = Path(tempfile.mkdtemp(dir=runtime.parent))
    folder.chmod(0o755)
    (folder / "runtime").symlink_to(runtime)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stage(base: Path) -> Iterator[Stage]:
    stage = Stage(base)
    yield stage
    stage.close()
    stage.remove()


@dataclass
class Grown:
    """A stopped database with ten rows in `kept`, shared by the tests of a file: each leaves it as it was."""

    path: Path
    stage: Stage

    def embedded(self, **options: object) -> EmbeddedPostgres:
        return self.stage.embedded(self.path, **options)

    def holder(self, then: str = "hold") -> subprocess.Popen[str]:
        return self.stage.holder(self.path, then)

    def attach(self) -> Cluster | None:
        return attach(self.path, base=self.stage.base)


@pytest.fixture(scope="module")
def seed(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    base = Path(tempfile.mkdtemp(dir=runtime.parent))
    base.chmod(0o755)
    (base / "runtime").symlink_to(runtime)
    path = tmp_path_factory.mktemp("grown") / ".shipworthy"
    launcher = EmbeddedPostgres(path, base=base)
    fill(launcher.start(), 10)
    launcher.stop()
    yield path, base
    shutil.rmtree(path)
    shutil.rmtree(base)


@pytest.fixture
def grown(seed: tuple[Path, Path]) -> Iterator[Grown]:
    stage = Stage(seed[1])
    yield Grown(seed[0], stage)
    stage.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store path that isn't there yet."""
    return tmp_path / "project" / ".shipworthy"
