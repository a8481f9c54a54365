"""Notices that one of the manifest's files has changed, by size, time and inode: editors replace files, links move."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Seen = tuple[int, int, int] | None


class Watch:
    """The state of some files at one moment. ``changed`` is true once a change, when they are still."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self._settled = self._last = self._look()

    def changed(self) -> bool:
        now = self._look()
        still, self._last = now == self._last, now
        if not still or now == self._settled:
            return False
        self._settled = now
        return True

    def _look(self) -> tuple[Seen, ...]:
        return tuple(_seen(path) for path in self.files)


def _seen(path: Path) -> Seen:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
