"""A structured JSON value as the lines of text that a guard reads: keys, strings and numbers, nothing left out."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from shipworthy.model.dialects.strict import Json, words

NUMBER_SHOWN_MIN = 10**7
"""Numbers from here on may be a card or an account; smaller ones beside the text are settings."""

ID = re.compile(r"[A-Za-z0-9_.:|+/=-]{1,256}\Z")
"""What an id looks like. Anything else in an id's place is text that a template may show to the model."""

WORDS = words("""
    auto none required any low medium high xhigh minimal max min default standard standard_only disabled enabled
    flex scale priority fast original in_memory 24h 5m 1h 30m 12h explicit implicit ephemeral text audio image
    json_object completed incomplete in_progress concise detailed direct adaptive float base64 wav mp3 opus flac
    pcm16 aac json text_only assistant user system developer tool function message response object
""")
"""Closed vocabulary of settings: these words alone say nothing, so they make no part."""

Sealed = Mapping[str, bool]
"""Keys whose value is media or cipher text: True = always, False = when it is a ``data:`` URL."""

UNSEALED: Sealed = {}


class Flat:
    """The lines of one value; ``sealed_bytes`` counts what was left out because it cannot be read."""

    __slots__ = ("lines", "sealed", "sealed_bytes", "sealed_seen")

    def __init__(self, sealed: Sealed = UNSEALED) -> None:
        self.lines: list[str] = []
        self.sealed = sealed
        self.sealed_bytes = 0
        self.sealed_seen = False

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def add(self, value: Json, key: str = "") -> None:
        """One line a leaf, ``key: value``; depth is bounded by decode."""
        if key in self.sealed and value is not None and self._seals(value, key):
            return
        if isinstance(value, str):
            self.lines.append(f"{key}: {value}" if key else value)
        elif isinstance(value, dict):
            if key:
                self.lines.append(key)
            for inner_key, inner in value.items():
                self.add(inner, inner_key)
        elif isinstance(value, list):
            if key:
                self.lines.append(key)
            for inner in value:
                self.add(inner)
        elif isinstance(value, bool) or value is None:
            if key:
                self.lines.append(key)
        else:
            self.lines.append(f"{key}: {value}" if key else str(value))

    def _seals(self, value: Json, key: str) -> bool:
        if not self.sealed[key] and not (isinstance(value, str) and value.startswith("data:")):
            return False
        self.sealed_bytes += len(value) if isinstance(value, str) else len(msgspec.json.encode(value))
        self.sealed_seen = True
        return True


def says_something(value: Json) -> bool:
    """Whether a value that stands beside the text could carry text itself."""
    if isinstance(value, str):
        return bool(value) and value not in WORDS
    if isinstance(value, bool) or value is None:
        return False
    if isinstance(value, (int, float)):
        return abs(value) >= NUMBER_SHOWN_MIN
    if isinstance(value, dict):
        return any(says_something(inner) or not ID.match(key) for key, inner in value.items())
    return any(says_something(inner) for inner in value)
