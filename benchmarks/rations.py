"""A share of a core for a process, by the kernel's own accounting: two cores then have room for workers and their load."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 10_000


class NoRations(Exception):
    """The kernel's groups are not ours to make here; in words."""


@contextmanager
def rationed(pids: Sequence[int], share: float) -> Iterator[None]:
    """Each of these gets at most ``share`` of a core. NoRations where groups cannot be made."""
    with ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_group(pid, int(share * PERIOD_US)))
        yield


@contextmanager
def _group(pid: int, quota_us: int) -> Iterator[None]:
    parent, limits = _parent(quota_us)
    group = parent / f"shipworthy-bench-{os.getpid()}-{pid}"
    try:
        group.mkdir()
    except OSError as denied:
        raise NoRations(f"{denied}") from denied
    try:
        try:
            for name, value in limits.items():
                (group / name).write_text(value)
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as denied:
            raise NoRations(f"{denied}") from denied
        yield
    finally:
        with suppress(OSError):  # the process may be gone
            (parent / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            group.rmdir()


def _parent(quota_us: int) -> tuple[Path, dict[str, str]]:
    """Of the first or the second generation of control groups, and what is written there."""
    if (ROOT / "cpu/cpu.cfs_quota_us").exists():
        return _own("cpu"), {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
    if "cpu" in _said(ROOT / "cgroup.subtree_control").split():
        return ROOT, {"cpu.max": f"{quota_us} {PERIOD_US}"}
    raise NoRations("no group of the kernel hands out cores here")


def _own(controller: str) -> Path:
    """Our own group: what we make below it binds no more than what bound us before."""
    for line in _said(Path("/proc/self/cgroup")).splitlines():
        _, names, place = line.split(":", 2)
        if controller in names.split(","):
            return ROOT / controller / place.strip("/")
    return ROOT / controller


def _said(place: Path) -> str:
    with suppress(OSError):
        return place.read_text()
    return ""
