"""Where processes come from: born at once, their ends told, and none lost when what they were forked from is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.journey.deployment import Deployment, said

from shipworthy.process.forking import CONTROL, WORKER, Started, start
from shipworthy.process.nursery import UNTOLD, Nursery, Process

WAIT_S = 30.0
FORKED_S_MAX = 0.5
"""What a birth may take on two busy cores. A process that has to load its libraries needs more even on idle ones."""
FOREIGN = {"supervisor": {"aiohttp", "cryptography", "uvloop", "markupsafe"}, "worker": {"aiohttp", "markupsafe"}}


async def born(nursery: Nursery, kind: str = WORKER) -> tuple[Process, socket.socket]:
    """A process, and our end of its channel: it waits to be told what it is to serve."""
    ours, theirs = socket.socketpair()
    with theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        fds = [theirs.fileno(), listener.fileno()] if kind == WORKER else [theirs.fileno()]
        try:
            return await nursery.birth(kind, f"{kind} 7", fds), ours
        except OSError:
            ours.close()
            raise


def story(told: Callable[[Nursery], Awaitable[None]]) -> None:
    async def whole() -> None:
        nursery = Nursery(started=start())
        try:
            async with asyncio.timeout(WAIT_S):
                await told(nursery)
        finally:
            nursery.close()

    asyncio.run(whole())


def sockets(process: Process) -> set[str]:
    """Those that it has open."""
    named = set[str]()
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            named.add(os.readlink(fd))
    return {name for name in named if name.startswith("socket:")}


async def seen(process: Process, name: str) -> bool:
    while Path(f"/proc/{process.pid}/comm").read_text() != f"{name}\n":
        await asyncio.sleep(0.01)
    return True


def test_a_process_is_born_and_its_end_is_told() -> None:
    async def told(nursery: Nursery) -> None:
        alone, ours = await born(nursery)
        began = time.monotonic()
        killed, kept = await born(nursery)
        control, other = await born(nursery, CONTROL)
        assert time.monotonic() - began < FORKED_S_MAX
        assert await seen(alone, "sw worker 7")
        assert await seen(control, "sw control 7")
        assert len({os.getsid(pid) for pid in (0, alone.pid, control.pid)}) == 3, "Ctrl-C reaches none of them"
        os.kill(killed.pid, signal.SIGKILL)
        assert await killed.wait() == -signal.SIGKILL
        for end in (ours, other):
            end.close()  # nobody will ever say what to serve
        assert [await alone.wait(), await control.wait()] == [0, 0]
        kept.close()

    story(told)


def test_a_process_has_nothing_of_what_it_was_forked_from() -> None:
    """SIGTERM ends it, and it has its own files: what others inherited, it has not."""

    async def told(nursery: Nursery) -> None:
        first, one = await born(nursery)
        second, two = await born(nursery)
        for process in (first, second):
            assert await seen(process, "sw worker 7")  # by then it has let go of them
        assert not sockets(first) & sockets(second)
        os.kill(first.pid, signal.SIGTERM)
        assert await first.wait() == -signal.SIGTERM
        two.close()
        assert await second.wait() == 0
        one.close()

    story(told)


def test_what_was_forked_outlives_what_it_was_forked_from() -> None:
    """The next one is forked from another; the end of those that live on is still noticed."""

    async def told(nursery: Nursery) -> None:
        living, ours = await born(nursery)
        assert nursery._started is not None
        os.kill(nursery._started.process.pid, signal.SIGKILL)
        while nursery._started is not None:
            await asyncio.sleep(0.01)
        assert living.returncode is None
        next_one, other = await born(nursery)
        other.close()
        assert await next_one.wait() == 0
        ours.close()
        assert await living.wait() == UNTOLD

    story(told)


def test_no_process_to_be_had_is_an_error_in_words() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broken = Started(subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]), ours)

    async def told() -> None:
        nursery = Nursery(started=broken)
        theirs.close()
        with pytest.raises(OSError, match=r"has ended|Broken pipe"):
            await born(nursery)
        nursery.close()

    asyncio.run(told())


def test_a_running_server_outlives_it_too(server: Deployment) -> None:
    (worker,) = server.processes("worker")
    forking = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    assert forking != server.process.pid
    os.kill(forking, signal.SIGKILL)
    with server.client() as client:
        assert client.post("/v1/chat/completions", json=said("hi")).status_code == 200
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + WAIT_S
        while not server.processes("worker") and time.monotonic() < deadline:
            time.sleep(0.02)
        (other,) = server.processes("worker")
        assert other != worker
        assert client.post("/v1/chat/completions", json=said("hi")).status_code == 200


def test_a_ready_server_has_loaded_nothing_that_it_does_not_need(server: Deployment) -> None:
    """At ready, so by what is mapped: a library with compiled parts that no request has needed yet costs its start."""
    for name, pid in (("supervisor", server.process.pid), ("worker", server.processes("worker")[0])):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "/pydantic_core/" in maps
        assert {library for library in FOREIGN[name] if f"/site-packages/{library}/" in maps} == set(), name


def test_where_something_else_runs_threads_processes_are_started_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An agent that `sitecustomize` loads into every Python: a fork would copy its locks."""
    threads = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    (tmp_path / "sitecustomize.py").write_text(threads)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def told(nursery: Nursery) -> None:
        (killed, one), (ended, two), (alone, ours) = [await born(nursery) for _ in range(3)]
        for process in (killed, ended, alone):
            assert await seen(process, "sw worker 7")
            assert "forking worker" in said_by(process)
        os.kill(killed.pid, signal.SIGKILL)
        assert await killed.wait() == -signal.SIGKILL
        os.kill(ended.pid, signal.SIGTERM)
        assert await ended.wait() == -signal.SIGTERM
        for end in (one, two, ours):
            end.close()
        assert await alone.wait() == 0

    story(told)


def said_by(process: Process) -> str:
    """The command line of a process."""
    return Path(f"/proc/{process.pid}/cmdline").read_text().replace("\0", " ")
