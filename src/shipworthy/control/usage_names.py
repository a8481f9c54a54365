"""A model by the name that a provider bills it under, as the one that we ask for it by; never a guess between two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")
SPACING = re.compile(r"[\s_.]+")


class Named(Struct, frozen=True):
    """Whom a name means: ``upstream`` is ours, or the name itself where none of ours is meant. ``how`` "" = exactly."""

    upstream: str
    how: str = ""


def resolve(theirs: Iterable[str], ours: Iterable[str], said: Mapping[str, str]) -> dict[str, Named]:
    """Each name of a file as one of ``ours``, where only one can be meant. ``said`` comes first."""
    known = sorted(set(ours))
    return {name: _resolved(name, known, said) for name in theirs}


def spelt(name: str) -> str:
    """A name without what is only spelling: ``Claude Haiku 4.5`` → claude-haiku-4-5."""
    return SPACING.sub("-", name.strip().lower())


def undated(name: str) -> str:
    """A name without the date of its snapshot: gpt-4.1-mini-2025-04-14 → gpt-4.1-mini."""
    return SNAPSHOT.sub("", name)


def _resolved(name: str, ours: list[str], said: Mapping[str, str]) -> Named:
    if name in said:
        return Named(said[name], "as said")
    if name in ours:
        return Named(name)
    alike = [each for each in ours if spelt(each) == spelt(name)]
    if len(alike) == 1:
        return Named(alike[0], "by its spelling")
    dated = [each for each in ours if _same_snapshot(spelt(each), spelt(name))]
    if len(dated) == 1:
        return Named(dated[0], "by its dated snapshot")
    if dated:
        return Named(name, f"it may be {' or '.join(dated)}: say which with --model")
    return Named(name, "none of ours")


def _same_snapshot(ours: str, theirs: str) -> bool:
    """Whether one of the two is the other with the date of a snapshot."""
    return ours != theirs and (ours == undated(theirs) or undated(ours) == theirs)
