"""What the operating system says about processes: families, CPU, memory, cores; and a network of our own."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
END_S = 60.0


ALLOWED = sorted(os.sched_getaffinity(0))
"""The machine's cores that we may use, as it was before anything was pinned."""


def cores() -> tuple[int, int]:
    """The gateway's core, and that of all others. One core does for both where there is no second."""
    return ALLOWED[0], ALLOWED[-1]


def _fields(pid: int) -> list[str]:
    """From the state on, as proc(5) counts them less three. Empty when the process is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def name(pid: int) -> str:
    """What `ps -o comm` shows: our workers are forked, and have no command of their own."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def family(pid: int) -> list[int]:
    """``pid`` and all that descends from it now."""
    found = [pid] if _fields(pid) else []
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time so far, with that of children who have ended."""
    total = 0
    for pid in pids:
        if fields := _fields(pid):
            total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def machine_cpu_s() -> float:
    """What all processes of the machine have used so far."""
    user, nice, system, _, _, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / TICKS


def memory_mb(pids: Iterable[int]) -> float:
    """Proportional set size: a page that several share is counted once."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def anonymous_mb(pids: Iterable[int]) -> float:
    """What these have allocated: resident pages that no file stands behind."""
    total = 0
    for pid in pids:
        total += sum(_status(pid, "RssAnon"))
    return total / 1024


def threads(pid: int) -> int:
    return sum(_status(pid, "Threads"))


def _status(pid: int, name: str) -> list[int]:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
    return []


def connections(*, local: int = 0, remote: int = 0) -> int:
    """TCP connections of our network by one of their ports: open, or closed by the other side only."""
    open_states = {"01", "02", "03", "04", "05", "08", "09"}
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, state, *_ = line.split()
        ports = (int(here.rpartition(":")[2], 16), int(there.rpartition(":")[2], 16))
        count += state in open_states and ports[0] == (local or ports[0]) and ports[1] == (remote or ports[1])
    return count


def descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def pin(pids: Iterable[int], *cores: int) -> None:
    """Every thread that these have; those to come inherit it."""
    for pid in pids:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(task.name), cores)


@contextmanager
def on_cores(*wanted: int) -> Iterator[None]:
    """What is started meanwhile belongs to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """SIGTERM; SIGKILL for what does not heed it."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """The same for a process that leads a group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    end(process)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


def private_network() -> bool:
    """From here on we and our children have a loopback of our own and nothing else; False where that is denied."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket() as asked:
        fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return True


def flush_us(folder: Path, times: int = 200) -> float:
    """The median time that the disk under ``folder`` takes to make 8 KB durable."""
    took = []
    place = folder / "flush"
    descriptor = os.open(place, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(times):
            os.pwrite(descriptor, os.urandom(8_192), 0)
            began = time.perf_counter()
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        place.unlink()
    return sorted(took)[times // 2] * 1e6
