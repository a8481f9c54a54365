"""SQL with a title: named blocks of ``sql/*.sql``, read once.

A file holds one aggregate. Each block begins with ``-- name: reserve — purpose``; a missing name, a name that stands twice
or a block without a purpose is an error, found when the file is first read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from psycopg import sql

TITLE = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*) — (?P<purpose>\S.*)$")


class BlockError(Exception):
    """A .sql file is not what its callers were promised: a programming error."""


class Blocks(Mapping[str, sql.SQL]):
    """The blocks of one aggregate by name."""

    def __init__(self, aggregate: str, text: str) -> None:
        self.aggregate = aggregate
        self._blocks = dict(_split(aggregate, text))

    def __getitem__(self, name: str) -> sql.SQL:
        if name not in self._blocks:
            raise BlockError(f"{self.aggregate}.sql has no block {name!r}; it has {', '.join(self._blocks)}")
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)


@cache
def blocks(aggregate: str) -> Blocks:
    """The blocks of ``sql/{aggregate}.sql``."""
    return Blocks(aggregate, folder("sql").joinpath(f"{aggregate}.sql").read_text(encoding="utf-8"))


def folder(name: str) -> Traversable:
    """A folder of files that ships beside this module."""
    return resources.files("shipworthy.adapters.store").joinpath(name)


def _split(aggregate: str, text: str) -> Iterator[tuple[str, sql.SQL]]:
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("-- name:") and TITLE.match(line) is None:
            raise BlockError(f"{aggregate}.sql:{number}: wanted `-- name: words — purpose`, found {line!r}")
    for part in re.split(r"(?m)^(?=-- name: )", text):
        first, _, body = part.partition("\n")
        title = TITLE.match(first)
        if title is None:
            if any(line.strip() and not line.startswith("--") for line in part.splitlines()):
                raise BlockError(f"{aggregate}.sql: statements stand before the first title")
            continue
        name = title["name"]
        if name in seen:
            raise BlockError(f"{aggregate}.sql: the block {name!r} stands twice")
        if not body.strip():
            raise BlockError(f"{aggregate}.sql: the block {name!r} is empty")
        seen.add(name)
        yield name, sql.SQL(body.strip().removesuffix(";"))
