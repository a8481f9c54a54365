"""Pieces of Markdown: tables, first sentences, links that stay links."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar or a line break in a cell stays in the cell."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def code(text: object) -> str:
    return f"`{text}`"


def prose(text: str | None) -> str:
    """A docstring as Markdown: its double backquotes are Markdown's single ones."""
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join((text or "").split()))


def first_line(text: str | None) -> str:
    return prose((text or "").strip().split("\n\n")[0])


def paragraphs(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"
