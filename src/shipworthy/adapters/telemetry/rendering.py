"""How one line looks: JSON for machines, short aligned columns for a person at a terminal. ASCII, one line, no escapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from shipworthy.adapters.telemetry.levels import Level

Value = str | int | float | bool | None
Render = Callable[[int, Level, str, str, Mapping[str, Value]], bytes]

_dumps = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
_INFINITE = (float("inf"), float("-inf"))
LEVEL_NAMES = {level: level.name.lower() for level in Level}
_second: tuple[int, str] = (-1, "")


def json_line(unix_ns: int, level: Level, process: str, event: str, fields: Mapping[str, Value]) -> bytes:
    """One JSON object. Everything beyond printable ASCII is escaped, so no text can forge a line or move a cursor."""
    if not HEAD.isdisjoint(fields):
        fields = {f"{event}_{name}" if name in HEAD else name: value for name, value in fields.items()}
    line = {"ts": rfc3339(unix_ns), "level": LEVEL_NAMES[level], "process": process, "event": event, **fields}
    try:
        text = _dumps(line)
    except ValueError:  # JSON has no NaN and no infinity
        text = _dumps(
            {name: value if value == value and value not in _INFINITE else None for name, value in line.items()}
        )
    return _printed(text).encode("ascii") + b"\n"


def quoted(text: str) -> str:
    """``text`` as ``json_line`` writes it, with its quotes."""
    return _printed(_dumps(text))


def _printed(text: str) -> str:
    return text.replace("\x7f", "\\u007f")


HEAD = frozenset({"ts", "level", "process", "event"})
"""Names that every line uses itself: a field of the same name is written with its event's name before it."""


def pretty_line(unix_ns: int, level: Level, process: str, event: str, fields: Mapping[str, Value]) -> bytes:
    """Time, level, process, event, then what is not empty; a traceback below, indented."""
    said = " ".join(
        f"{name}={_printable(_shown(value))}"
        for name, value in fields.items()
        if value not in ("", 0, None) and name != "traceback"
    )
    line = f"{rfc3339(unix_ns)[11:23]} {LEVEL_NAMES[level]:<7} {process:<11} {event:<16} {said}\n"
    for below in str(fields.get("traceback") or "").splitlines():
        line += f"    {_printable(below)}\n"
    return line.encode("ascii", "backslashreplace")


def rfc3339(unix_ns: int) -> str:
    """UTC with microseconds: ``2026-11-21T21:42:07.123456Z``."""
    global _second
    second, ns = divmod(unix_ns, 1_000_000_000)
    known, text = _second
    if second != known:
        text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second = (second, text)
    return f"{text}.{ns // 1_000:06d}Z"


def _shown(value: Value) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
