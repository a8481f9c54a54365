"""The files of one load, as they were: read from the disk, or given as they were when the manifest was put in force.

Why given? A worker that starts again must get the manifest that is in force, though the disk holds another by then: one that
is half written, refused, or asks for what cannot change while the server runs. Secrets' files are among them.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

Texts = Mapping[str, bytes]
"""What the files held, by their absolute path."""


class Files:
    """Reads files for one load and remembers them in ``texts``. ``given`` None = the disk is read."""

    def __init__(self, given: Texts | None = None) -> None:
        self.texts: dict[str, bytes] = {}
        self._given = given

    def content(self, path: Path, bytes_max: int) -> bytes:
        """What the file holds; one byte more than ``bytes_max`` tells that there is more. Raises OSError."""
        name = str(path.absolute())
        if self._given is None:
            with path.open("rb") as stream:
                content = stream.read(bytes_max + 1)
        elif name in self._given:
            content = self._given[name]
        else:
            raise FileNotFoundError(errno.ENOENT, "not there when the manifest was put in force", name)
        self.texts[name] = content
        return content

    def sizes(self, folder: Path) -> dict[Path, int]:
        """The entries of a folder and how large they are. Raises OSError."""
        if self._given is None:
            return {entry: entry.stat().st_size for entry in folder.iterdir()}
        inside = {Path(name): len(content) for name, content in self._given.items()}
        return {path: size for path, size in inside.items() if path.parent == folder.absolute()}
