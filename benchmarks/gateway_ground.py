"""What every measurement stands on: a folder, a PostgreSQL and the mock provider, all off the gateway's core."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from money_ground import Database
from processes import cores, end

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ground:
    """``port`` is the mock provider's."""

    base: Path
    database: Database
    port: int
    upstream_pid: int


@contextmanager
def ground() -> Iterator[Ground]:
    """This process and all that it starts from here on are on the others' core; only a gateway is moved to its own."""
    os.sched_setaffinity(0, {cores()[1]})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a thousand streams are a thousand connections, twice
    base = Path(tempfile.mkdtemp(prefix="shipworthy-bench-"))
    base.chmod(0o755)  # PostgreSQL's own account enters it
    try:
        with upstream() as (port, pid):
            database = Database(base)
            try:
                yield Ground(base, database, port, pid)
            finally:
                database.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def upstream() -> Iterator[tuple[int, int]]:
    """The mock provider's port and pid."""
    process = subprocess.Popen([sys.executable, str(HERE / "upstream.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        end(process)
