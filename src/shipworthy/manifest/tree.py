"""YAML text → plain values, each with the line on which it stands.

Built from the parser's events: no tags, no objects, no floats (``Decimal`` keeps what was written), bounded in size, depth,
and in what aliases expand to. Anything else is a problem with a line, never an exception of the parser's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from shipworthy.manifest.problem import KeyPath, Problem, Severity, dotted, quoted

FILE_BYTES_MAX = 1_048_576
DEPTH_MAX = 24
NODES_MAX = 200_000
KEY_CHARS_MAX = 256
NUMBER_CHARS_MAX = 64

Value = dict[str, "Value"] | list["Value"] | str | int | Decimal | bool | None

_INT = re.compile(r"[-+]?[0-9]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_CONSTANTS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value was written: the file, the line, and its path there."""

    file: str
    line: int
    path: KeyPath


@dataclass(slots=True)
class Tree:
    """The values of a manifest and where each was written, and the problems found so far.

    ``broken`` are the places that are known to be wrong once the shape was checked: what is reported of a section around one
    of them would only be its consequence.
    """

    value: dict[str, Value] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: list[KeyPath] = field(default_factory=list)

    def mark(self, path: KeyPath) -> Mark:
        """Where ``path`` was written, or the nearest thing around it."""
        for length in range(len(path), -1, -1):
            found = self.marks.get(path[:length])
            if found is not None:
                return found if length == len(path) else Mark(found.file, found.line, found.path + path[length:])
        return Mark("", 1, path)

    def at(self, path: KeyPath) -> Value:
        """The value at ``path``; None when there is none."""
        here: Value = self.value
        for key in path:
            if isinstance(here, dict) and isinstance(key, str):
                here = here.get(key)
            elif isinstance(here, list) and isinstance(key, int) and key < len(here):
                here = here[key]
            else:
                return None
        return here

    def report(
        self, path: KeyPath, what: str, *, said: str | None = None, wanted: str = "", hint: str = "",
        severity: Severity = Severity.PROBLEM,
    ) -> None:  # fmt: skip
        """Adds a problem at ``path``; ``said`` is the value there unless given."""
        mark = self.mark(path)
        if path and any(broken[: len(mark.path)] == mark.path for broken in self.broken):
            return
        shown = quoted(self.at(path)) if said is None else said
        self.problems.append(Problem(mark.file, mark.line, dotted(mark.path), what, shown, wanted, hint, severity))

    def warn(self, path: KeyPath, what: str, *, said: str = "", wanted: str = "", hint: str = "") -> None:
        self.report(path, what, said=said, wanted=wanted, hint=hint, severity=Severity.WARNING)

    def drop(self, path: KeyPath) -> None:
        """Takes the value at ``path`` out; what follows it in a list moves up and keeps its marks."""
        parent, key = self.at(path[:-1]), path[-1]
        if isinstance(parent, dict) and isinstance(key, str) and key in parent:
            del parent[key]
        elif isinstance(parent, list) and isinstance(key, int) and key < len(parent):
            del parent[key]
            self._move_up(path[:-1], key)

    def _move_up(self, stem: KeyPath, gone: int) -> None:
        moved: dict[KeyPath, Mark] = {}
        at = len(stem)
        for path, mark in self.marks.items():
            index = path[at] if path[:at] == stem and len(path) > at else None
            if isinstance(index, int) and index >= gone:
                if index > gone:
                    moved[(*stem, index - 1, *path[at + 1 :])] = mark
            else:
                moved[path] = mark
        self.marks = moved

    def graft(self, path: KeyPath, other: Tree) -> None:
        """Puts the whole of ``other`` at ``path``, which must be a new key of a mapping."""
        parent, key = self.at(path[:-1]), path[-1]
        assert isinstance(parent, dict) and isinstance(key, str)
        parent[key] = other.value
        self.marks |= {path + below: Mark(m.file, m.line, path + m.path) for below, m in other.marks.items()}
        self.problems += other.problems
        if other.problems and not other.value:
            self.broken.append(path)


class _Unreadable(Exception):
    """The text cannot be read on from here."""

    def __init__(self, line: int, what: str, wanted: str = "", hint: str = "", said: str = "") -> None:
        self.line, self.what, self.wanted, self.hint, self.said = line, what, wanted, hint, said
        super().__init__(what)


def read_tree(content: bytes, file: str) -> Tree:
    """The mapping that ``content`` says, with lines. Never raises: what cannot be read is in ``problems``."""
    tree = Tree()
    tree.marks[()] = Mark(file, 1, ())
    try:
        _Reader(tree, file).read(_text(content))
    except _Unreadable as bad:
        tree.problems.append(Problem(file, bad.line, "", bad.what, bad.said, bad.wanted, bad.hint))
    except MarkedYAMLError as bad:
        tree.problems.append(_syntax(bad, file))
    except YAMLError as bad:
        tree.problems.append(Problem(file, 1, "", f"not YAML: {' '.join(str(bad).split())[:200]}", wanted="YAML 1.2"))
    return tree


def _text(content: bytes) -> str:
    if len(content) > FILE_BYTES_MAX:
        raise _Unreadable(1, "the file is too large", f"at most {FILE_BYTES_MAX} bytes", said=f"{len(content)} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        line = content.count(b"\n", 0, bad.start) + 1
        raise _Unreadable(line, "not UTF-8", "UTF-8 text", "save the file as UTF-8") from bad
    for number, line_text in enumerate(text.split("\n"), 1):
        for char in line_text:
            if char < " " and char not in "\t\r":
                raise _Unreadable(
                    number, "a control character stands here", "printable text", said=f"U+{ord(char):04X}"
                )
        if line_text.startswith("\t") and line_text.strip():
            raise _Unreadable(number, "a tab indents this line", "spaces", "YAML is indented with spaces only")
    return text


def _syntax(bad: MarkedYAMLError, file: str) -> Problem:
    mark = bad.problem_mark or bad.context_mark
    line = mark.line + 1 if mark is not None else 1
    context = f"{bad.context}: " if bad.context else ""
    what = " ".join(f"not YAML: {context}{bad.problem or 'it cannot be parsed'}".split())
    hint = "quote text that holds ': ', '#', '{', '[', '&', '*' or '!'"
    return Problem(file, line, "", what, wanted="YAML 1.2", hint=hint)


class _Reader:
    """One pass over the events of one document."""

    def __init__(self, tree: Tree, file: str) -> None:
        self.tree = tree
        self.file = file
        self.nodes = 0
        self.anchors: dict[str, tuple[Value, dict[KeyPath, int]]] = {}
        self.events: Iterator[Event] = iter(())

    def read(self, text: str) -> None:
        yaml = YAML(typ="safe", pure=True)
        self.events = yaml.parse(text)
        documents = 0
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unreadable(_line(event), "a second document begins", "one document", "remove the ---")
                self._root(next(self.events))
        if not documents:
            raise _Unreadable(1, "the file says nothing", "a mapping of keys")

    def _root(self, event: Event) -> None:
        if isinstance(event, ScalarEvent) and event.value == "":
            raise _Unreadable(_line(event), "the file says nothing", "a mapping of keys")
        if not isinstance(event, MappingStartEvent):
            raise _Unreadable(_line(event), "the file is not a mapping", "a mapping of keys")
        value, lines = self._mapping(event, 0)
        self.tree.value = value
        self.tree.marks |= {path: Mark(self.file, line, path) for path, line in lines.items()}

    def _node(self, event: Event, depth: int) -> tuple[Value, dict[KeyPath, int]]:
        if depth > DEPTH_MAX:
            raise _Unreadable(_line(event), "nested too deep", f"at most {DEPTH_MAX} levels")
        if isinstance(event, AliasEvent):
            return self._alias(event)
        if _tag(event) not in ("", "!"):
            raise _Unreadable(
                _line(event), "a tag stands here", "a plain value", "tags are not read: remove it", _tag(event)
            )
        self._count(event, 1)
        value: Value
        lines: dict[KeyPath, int] = {(): _line(event)}
        if isinstance(event, MappingStartEvent):
            value, lines = self._mapping(event, depth)
        elif isinstance(event, SequenceStartEvent):
            value, lines = self._sequence(event, depth)
        else:
            assert isinstance(event, ScalarEvent)
            value = _scalar(event)
        if isinstance(event, NodeEvent) and event.anchor:
            self.anchors[str(event.anchor)] = (value, lines)
        return value, lines

    def _count(self, event: Event, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > NODES_MAX:
            raise _Unreadable(_line(event), "aliases included, the file says too much", f"at most {NODES_MAX} values")

    def _alias(self, event: AliasEvent) -> tuple[Value, dict[KeyPath, int]]:
        known = self.anchors.get(str(event.anchor))
        if known is None:
            raise _Unreadable(_line(event), "this alias names no anchor before it", said=f"*{event.anchor}")
        value, lines = known
        self._count(event, len(lines))
        return _copy(value), lines

    def _mapping(self, start: Event, depth: int) -> tuple[dict[str, Value], dict[KeyPath, int]]:
        mapping: dict[str, Value] = {}
        lines: dict[KeyPath, int] = {(): _line(start)}
        for event in self.events:
            if isinstance(event, MappingEndEvent):
                break
            key, line = self._key(event)
            value, below = self._node(next(self.events), depth + 1)
            if key in mapping:
                self._twice(key, line, lines[(key,)])
                continue
            mapping[key] = value
            lines |= {(key, *path): at for path, at in below.items()}
            lines[(key,)] = line
        return mapping, lines

    def _key(self, event: Event) -> tuple[str, int]:
        line = _line(event)
        if not isinstance(event, ScalarEvent):
            raise _Unreadable(
                line, "a key is not plain text", "text", "a key is a name; quote it if it begins with * & { ["
            )
        key = str(event.value)
        if key == "<<":
            raise _Unreadable(
                line, "merge keys are not read", "the keys themselves", "an alias (*name) may stand for a value"
            )
        if len(key) > KEY_CHARS_MAX:
            raise _Unreadable(line, "a key is too long", f"at most {KEY_CHARS_MAX} characters")
        return key, line

    def _twice(self, key: str, line: int, first: int) -> None:
        what = f"the key {quoted(key)} stands here twice; the first is on line {first}"
        hint = "keep one: readers of YAML disagree on which counts"
        self.tree.problems.append(Problem(self.file, line, key, what, quoted(key), "each key once", hint))

    def _sequence(self, start: Event, depth: int) -> tuple[list[Value], dict[KeyPath, int]]:
        items: list[Value] = []
        lines: dict[KeyPath, int] = {(): _line(start)}
        for event in self.events:
            if isinstance(event, SequenceEndEvent):
                break
            value, below = self._node(event, depth + 1)
            lines |= {(len(items), *path): at for path, at in below.items()}
            items.append(value)
        return items, lines


def _copy(value: Value) -> Value:
    """A copy of its own, so that dropping a part of one use of an alias leaves the others whole."""
    match value:
        case dict():
            return {key: _copy(item) for key, item in value.items()}
        case list():
            return [_copy(item) for item in value]
        case _:
            return value


def _line(event: Event) -> int:
    mark = event.start_mark
    return int(mark.line) + 1 if mark is not None else 1


def _tag(event: Event) -> str:
    tag = getattr(event, "tag", None)  # not every event has one
    return "" if tag is None else str(tag)


def _scalar(event: ScalarEvent) -> Value:
    """A scalar by YAML 1.2's core schema; a fraction stays the decimal that was written."""
    text = str(event.value)
    if event.style is not None and event.style in ("'", '"', "|", ">"):
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= NUMBER_CHARS_MAX:
        if _INT.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return Decimal(text)
    return text
