"""Collects a request's parts. The rule: what a dialect doesn't name is text all the same, and becomes a part.

So a field that a provider adds tomorrow, or that only one server reads, is scanned before this code has heard of it. A
dialect names the few fields that no model reads (``unread``); a property test plants a marker in every string to hold
it to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from shipworthy.model.chat import Origin, Part, PartKind, Path, Tool
from shipworthy.model.dialects.flat import ID, UNSEALED, Flat, Sealed, says_something
from shipworthy.model.dialects.strict import Json, Limits, Object, shown, words
from shipworthy.model.errors import Refusal

LABELS = words("type id status phase execution role media_type")
"""Fields that hold an id or a word of the dialect. Whatever else stands there is text."""

OUTSIDE = -1
"""The turn of what stands outside the messages."""


class Gather:
    """The parts and tools of one request, in the order in which its dialect reads them."""

    __slots__ = ("limits", "offered", "parts", "tools")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.parts: list[Part] = []
        self.tools: list[Tool] = []
        self.offered: frozenset[str] = frozenset()  # names of tools whose definition is a part already

    def text(
        self,
        kind: PartKind,
        origin: Origin,
        turn: int,
        path: Path,
        value: Json,
        *,
        name: str = "",
        call_id: str = "",
        wanted: str = "a string",
    ) -> None:
        """A string at ``path``. Nothing for "" and null; another type is refused."""
        if isinstance(value, str):
            if value:
                self.parts.append(Part(kind, origin, turn, path, value, False, True, name, call_id))
        elif value is not None:
            wrong_type(path, wanted)

    def structured(
        self,
        kind: PartKind,
        origin: Origin,
        turn: int,
        path: Path,
        value: Json,
        *,
        name: str = "",
        call_id: str = "",
        media_type: str = "",
        sealed: Sealed = UNSEALED,
        scannable: bool = True,
    ) -> None:
        """A value whose leaves are text, one line each; what is ``sealed`` is counted and makes it unscannable."""
        flat = Flat(sealed)
        flat.add(value)
        readable = scannable and not flat.sealed_seen
        part = Part(
            kind, origin, turn, path, flat.text, True, readable, name, call_id, media_type, flat.sealed_bytes
        )  # fmt: skip
        self.parts.append(part)

    def opaque(self, origin: Origin, turn: int, path: Path, value: Json, *, text: str = "") -> None:
        """What cannot be read here at all: cipher text, token arrays, things that the provider has stored."""
        inline = len(value) if isinstance(value, str) and not text else 0
        self.parts.append(
            Part(PartKind.OPAQUE, origin, turn, path, text, not isinstance(value, str), False, "", "", "", inline)
        )

    def other(self, origin: Origin, turn: int, path: Path, value: Json, *, scannable: bool = True) -> None:
        """A value that no dialect names: a part if it could carry text."""
        if not says_something(value):
            return
        if isinstance(value, str):
            self.parts.append(Part(PartKind.OTHER, origin, turn, path, value, False, scannable))
        else:
            self.structured(PartKind.OTHER, origin, turn, path, value, scannable=scannable)

    def rest(self, fields: Object, named: frozenset[str], origin: Origin, turn: int, path: Path) -> None:
        """Every field of ``fields`` that the dialect has not ``named``, and those named that should be labels and aren't."""
        for key, value in fields.items():
            if key not in named or (key in LABELS and not (isinstance(value, str) and ID.match(value))):
                self.other(origin, turn, (*path, key), value)

    def id(self, origin: Origin, turn: int, path: Path, value: Json) -> str:
        """An id: no part while it looks like one. Returns it, "" when absent."""
        if value is None:
            return ""
        if not isinstance(value, str):
            wrong_type(path, "a string")
        if value and not ID.match(value):
            self.parts.append(Part(PartKind.OTHER, origin, turn, path, value))
        return value

    def called(self, origin: Origin, turn: int, path: Path, value: Json) -> str:
        """The name of a tool that is called: no part when the tool is offered, for then its definition is one."""
        if value is None:
            return ""
        if not isinstance(value, str):
            wrong_type(path, "a string")
        if value and value not in self.offered:
            self.parts.append(Part(PartKind.OTHER, origin, turn, path, value))
        return value

    def tool(self, name: str, hosted: bool, path: Path) -> None:
        self.tools.append(Tool(name, hosted, path))
        if len(self.tools) > self.limits.tools_max:
            raise Refusal("decode.too_many", field=where(path[:1]), limit=self.limits.tools_max)

    def bounded(self) -> tuple[Part, ...]:
        """The parts, if they are not too many."""
        if len(self.parts) > self.limits.parts_max:
            raise Refusal("decode.too_many", field="content parts", limit=self.limits.parts_max)
        return tuple(self.parts)


def wrong_type(path: Iterable[str | int], wanted: str) -> NoReturn:
    raise Refusal("decode.wrong_type", field=where(path), wanted=wanted)


def where(path: Iterable[str | int]) -> str:
    """A path as a client writes it: ``messages[2].content``."""
    said = ""
    for step in path:
        said += f"[{step}]" if isinstance(step, int) else (f".{shown(step)}" if said else shown(step))
    return said


def required(fields: Object, key: str) -> Json:
    if key not in fields or fields[key] is None:
        raise Refusal("decode.missing_field", field=key)
    return fields[key]


def an_object(value: Json, path: Path) -> Object:
    if not isinstance(value, dict):
        wrong_type(path, "an object")
    return value


def an_array(value: Json, path: Path, limit: int) -> list[Json]:
    if not isinstance(value, list):
        wrong_type(path, "an array")
    if len(value) > limit:
        raise Refusal("decode.too_many", field=where(path), limit=limit)
    return value


def a_flag(fields: Object, key: str) -> bool:
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        wrong_type((key,), "true or false")
    return value is True


def a_count(fields: Object, key: str) -> int | None:
    """A positive integer, or None when absent or null."""
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        wrong_type((key,), "a positive integer")
    return value


def a_model(fields: Object, limits: Limits) -> str:
    value = required(fields, "model")
    if not isinstance(value, str) or not a_printable_model(value, limits):
        wrong_type(("model",), f"a printable string of 1 to {limits.model_chars_max} characters")
    return value


def a_printable_model(value: str, limits: Limits) -> bool:
    return 0 < len(value) <= limits.model_chars_max and value.isprintable()


def an_end_user(value: Json, path: Path, limits: Limits) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limits.end_user_chars_max:
        wrong_type(path, f"a string of at most {limits.end_user_chars_max} characters")
    return value
