"""What is wrong with a manifest: file, line, key, what was said, what was wanted, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from shipworthy.model.errors import StartRefused

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys and list indexes from the root."""

SAID_CHARS_MAX = 80
NAMES_SHOWN_MAX = 12

_LOOKS_SECRET = re.compile(r"^(sk-|pk-|gh[opsu]_|xox|AKIA|eyJ|Bearer )|://[^/\s]*:[^/\s]*@|-----BEGIN")


class Severity(StrEnum):
    PROBLEM = "problem"  # the manifest is refused
    WARNING = "warning"  # the manifest is taken; someone should look


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth a look. ``what`` is the sentence; ``said`` never holds a secret."""

    file: str
    line: int
    path: str
    what: str
    said: str = ""
    wanted: str = ""
    hint: str = ""
    severity: Severity = Severity.PROBLEM

    def __post_init__(self) -> None:
        for name in (
            "path",
            "what",
            "said",
            "wanted",
            "hint",
        ):  # a terminal that shows them must not be told what to do
            object.__setattr__(self, name, printable(getattr(self, name)))

    def __str__(self) -> str:
        said = f"; said {self.said}" if self.said else ""
        wanted = f"; wanted {self.wanted}" if self.wanted else ""
        hint = f"; {self.hint}" if self.hint else ""
        key = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}: {self.severity}: {key}{self.what}{said}{wanted}{hint}"


class ManifestRefused(StartRefused):
    """The manifest is not taken. ``problems`` are all that was found, warnings included, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = sum(problem.severity is Severity.PROBLEM for problem in self.problems)
        first = next(str(problem) for problem in self.problems if problem.severity is Severity.PROBLEM)
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__("manifest.refused", f"{first}{more}", "shipworthy check lists every problem")


def printable(text: str) -> str:
    """``text`` on one line, with control characters made visible."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def dotted(path: KeyPath) -> str:
    """``use_cases.support.route.models[1]``"""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def quoted(value: object) -> str:
    """``value`` as it may be shown: short, and not if it looks like a credential."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return f"a mapping of {len(value)}" if value else "{}"
        case list():
            return f"a list of {len(value)}" if value else "[]"
        case str() if _LOOKS_SECRET.search(value):
            return f"text of {len(value)} characters (not shown)"
        case str():
            shown = value if len(value) <= SAID_CHARS_MAX else f"{value[:SAID_CHARS_MAX]}…"
            return f"'{shown}'"
        case _:
            shown = str(value)
            return shown if len(shown) <= SAID_CHARS_MAX else f"{shown[:SAID_CHARS_MAX]}…"


def one_of(names: Iterable[str]) -> str:
    """``one of a, b, c``, bounded."""
    known = list(names)
    if not known:
        return "none exists"
    shown = ", ".join(known[:NAMES_SHOWN_MAX]) + (", …" if len(known) > NAMES_SHOWN_MAX else "")
    return f"one of {shown}" if len(known) > 1 else shown


def did_you_mean(said: str, names: Iterable[str]) -> str:
    """``did you mean X?`` when a name is close, else nothing."""
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(said.lower()[:128], list(lower), n=1, cutoff=0.6)
    return f"did you mean {lower[close[0]]}?" if close else ""
