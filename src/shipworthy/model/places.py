"""Where JSON values stand in a body, byte for byte, so that one of them can be rewritten and all others stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from shipworthy.model.chat import Path

Span = tuple[int, int]

SPACE = re.compile(rb"[ \t\n\r]*+")
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
SCALAR = re.compile(rb"[-+0-9.eE]++|true|false|null")
SKIPPED = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+([\[\]{}])', re.DOTALL)
"""Everything up to the next bracket that is not inside a string."""


class Wanted:
    """The paths that are looked for, as a tree; ``here`` marks that the value itself is wanted."""

    __slots__ = ("here", "inner")

    def __init__(self) -> None:
        self.here = False
        self.inner: dict[str | int, Wanted] = {}


def places(body: bytes, paths: Iterable[Path]) -> dict[Path, Span]:
    """``body[a:b]`` is the JSON value at each path. ``body`` is valid JSON; of two equal keys the last counts.

    Raises KeyError for a path that leads nowhere.
    """
    asked = tuple(paths)
    tree = Wanted()
    for path in asked:
        node = tree
        for step in path:
            node = node.inner.setdefault(step, Wanted())
        node.here = True
    found: dict[Path, Span] = {}
    visit(body, gap(body, 0), tree, (), found)
    return {path: found[path] for path in asked}


def visit(body: bytes, at: int, wanted: Wanted, path: Path, found: dict[Path, Span]) -> int:
    """Finds what is wanted in the value that begins at ``at``; returns where the value ends."""
    opening = body[at : at + 1]
    if not wanted.inner or opening not in (b"{", b"["):
        end = skip(body, at)
    elif opening == b"{":
        end = visit_object(body, at, wanted, path, found)
    else:
        end = visit_array(body, at, wanted, path, found)
    if wanted.here:
        found[path] = (at, end)
    return end


def visit_object(body: bytes, at: int, wanted: Wanted, path: Path, found: dict[Path, Span]) -> int:
    at = gap(body, at + 1)
    while body[at : at + 1] != b"}":
        key_end = skip(body, at)
        key = json.loads(body[at:key_end])
        at = gap(body, gap(body, key_end) + 1)  # past the colon
        inner = wanted.inner.get(key)
        if inner is None:
            at = skip(body, at)
        else:
            forget(found, (*path, key))
            at = visit(body, at, inner, (*path, key), found)
        at = after_comma(body, at)
    return at + 1


def visit_array(body: bytes, at: int, wanted: Wanted, path: Path, found: dict[Path, Span]) -> int:
    at = gap(body, at + 1)
    index = 0
    while body[at : at + 1] != b"]":
        inner = wanted.inner.get(index)
        at = skip(body, at) if inner is None else visit(body, at, inner, (*path, index), found)
        at = after_comma(body, at)
        index += 1
    return at + 1


def forget(found: dict[Path, Span], under: Path) -> None:
    """A key that comes twice: what the first held does not count."""
    for path in [path for path in found if path[: len(under)] == under]:
        del found[path]


def skip(body: bytes, at: int) -> int:
    """The end of the value that begins at ``at``."""
    opening = body[at : at + 1]
    if opening == b'"':
        return matched(STRING, body, at)
    if opening not in (b"{", b"["):
        return matched(SCALAR, body, at)
    depth = 0
    while True:
        at = matched(SKIPPED, body, at)
        depth += 1 if body[at - 1] in b"{[" else -1
        if depth == 0:
            return at


def gap(body: bytes, at: int) -> int:
    return matched(SPACE, body, at)


def after_comma(body: bytes, at: int) -> int:
    """The next key or value, or the closing bracket."""
    at = gap(body, at)
    return gap(body, at + 1) if body[at : at + 1] == b"," else at


def matched(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    found = pattern.match(body, at)
    if found is None:
        raise ValueError(f"the body is not JSON at byte {at}")
    return found.end()
