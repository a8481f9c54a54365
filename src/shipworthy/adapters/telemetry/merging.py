"""What several processes counted, added up; and the burial of the dead. Imported only where it is needed.

A file that cannot be read (a process was killed while it made it) is left out; the others are still told.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

GONE = "gone"
"""Stands for all dead processes, where a living one has its id."""
GONE_KEYS_MAX = 40_000
UNREADABLE = (OSError, RuntimeError, ValueError, struct.error)


class Merged(Collector):
    """The metrics of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        files = sorted(str(path) for path in self._directory.glob("*.db"))
        try:
            return _merged(files)
        except UNREADABLE:
            return _merged([file for file in files if _readable(file)])


def _merged(files: list[str]) -> list[Metric]:
    return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]


def bury(directory: Path, process_id: str) -> None:
    """Adds a dead process's counters and histograms to those of all the dead, and removes its files.

    A crash between the two steps leaves it counted twice: metrics may err, money is not read off them.
    """
    mark_process_dead(process_id, str(directory))  # type: ignore[no-untyped-call]
    for kind in ("counter", "histogram"):
        body, grave = directory / f"{kind}_{process_id}.db", directory / f"{kind}_{GONE}.db"
        if not body.exists():
            continue
        if _readable(str(body)):
            sums = dict(_entries(grave)) if grave.exists() else {}
            for key, value in _entries(body):
                key = key if key in sums or len(sums) < GONE_KEYS_MAX else _as_other(key)
                sums[key] = sums.get(key, 0.0) + value
            _write(grave, sums)
        body.unlink()


def _entries(path: Path) -> Iterator[tuple[str, float]]:
    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
        yield key, value


def _write(path: Path, sums: dict[str, float]) -> None:
    """Replaces the file whole. Its space is allocated first: a full disk raises OSError here, and no SIGBUS later."""
    new = path.with_suffix(".new")
    try:
        with open(new, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 4_096 + sum(len(key.encode()) + 40 for key in sums))
        written = MmapedDict(str(new))  # type: ignore[no-untyped-call]
        for key, value in sums.items():
            written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        written.close()  # type: ignore[no-untyped-call]
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _as_other(key: str) -> str:
    metric, sample, labels, help_text = json.loads(key)
    kept = {name: value if name == "le" else "other" for name, value in labels.items()}
    return json.dumps([metric, sample, kept, help_text], sort_keys=True)


def _readable(file: str) -> bool:
    try:
        for key, _, _, _ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            json.loads(key)
    except UNREADABLE:
        return False
    return True
