"""For root: which home below ``/var/lib/shipworthy`` belongs to which store path.

Why the detour? The data must be reachable for an unprivileged account, and a store path may lie anywhere, below /root
for one; opening somebody's directories is not ours to do. The id is drawn once, from the resolved path and chance, and
kept in a marker in the store path: a moved store finds its data again, a deleted one that is made anew gets a new
database, and a copied one is refused, because two stores can't own one database.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from shipworthy.adapters.embedded.postgres_errors import DataDamaged, DataMissing, PathUnusable, StoreCopied
from shipworthy.adapters.embedded.postgres_files import make_open, read_word, write_private

MARKER = "cluster.json"  # in the store path: the id
ORIGIN = "origin.json"  # in the home: the store path
ID = re.compile(r"[a-z0-9-]{1,40}")
ABSOLUTE_PATH = re.compile(r"/.*", re.DOTALL)
LEFTOVERS_LOOKED_AT_MAX = 1000
MARKER_TRIES_MAX = 3


def read_identity(path: Path) -> str | None:
    """The id of the store at ``path``, None when root never made one there."""
    return read_word(path / MARKER, "id", ID)


def home_of(path: Path, base: Path, progress: Callable[[str], None]) -> Path:
    """The home of the store at ``path``; drawn when the store has none."""
    identity = read_identity(path)
    if identity is None:
        _tell_leftovers(path, base, progress)
        identity = _draw_identity(path, base)
    root = base / identity
    if not (root / ORIGIN).is_file():
        raise DataMissing(
            f"The data of the store {path} belongs in {root}, and that isn't there.",
            f"Bring it back (a volume that isn't mounted?). To begin with an empty database, remove {path / MARKER}.",
        )
    _require_origin(path, root)
    return root


def _draw_identity(path: Path, base: Path) -> str:
    """Make the home first and the marker last, so that a marker always has a home; the first marker wins."""
    make_open(base)
    for _ in range(MARKER_TRIES_MAX):
        identity = _spoken(path) + "-" + hashlib.sha256(os.fsencode(path) + secrets.token_bytes(16)).hexdigest()[:12]
        root = base / identity
        root.mkdir()
        root.chmod(0o711)  # the account passes through to data/ and run/; it can't list or write
        write_private(root / ORIGIN, json.dumps({"path": str(path)}))
        try:
            write_private(path / MARKER, json.dumps({"id": identity}), new=True)
            return identity
        except FileExistsError:
            (root / ORIGIN).unlink()
            root.rmdir()
        winner = read_identity(path)
        if winner is not None:
            return winner
    raise PathUnusable(f"{path / MARKER} comes and goes.", "Start one server on this store path, not several.")


def _spoken(path: Path) -> str:
    """A few letters of the path, so that people recognise the home."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{path.parent.name}-{path.name}".lower())
    return words.strip("-")[:24].strip("-") or "store"


def _require_origin(path: Path, root: Path) -> None:
    origin = Path(read_word(root / ORIGIN, "path", ABSOLUTE_PATH) or "/")
    if origin == path:
        return
    if read_identity(origin) == root.name and not origin.samefile(path):
        raise StoreCopied(
            f"The store {path} is a copy of {origin}, which owns the database in {root}.",
            f"Use {origin}, or remove {path / MARKER} to give this store a database of its own.",
        )
    write_private(root / ORIGIN, json.dumps({"path": str(path)}))  # the store was moved, and its data follows


def _tell_leftovers(path: Path, base: Path, progress: Callable[[str], None]) -> None:
    """Say when an earlier store at this path left its data behind: nothing is deleted that wasn't asked for."""
    for place in islice(base.glob(f"*/{ORIGIN}"), LEFTOVERS_LOOKED_AT_MAX):
        try:
            origin = read_word(place, "path", ABSOLUTE_PATH)
        except DataDamaged:
            continue  # somebody else's broken home is no reason to refuse this one
        if origin == str(path):
            progress(f"an earlier store at {path} left its data in {place.parent}; remove that when nobody wants it")
