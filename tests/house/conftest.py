"""What the rules of the house are checked on: the sources, parsed once, and the files that git keeps."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "shipworthy"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file of the package. ``name`` is its path below the package, such as ``stages/route.py``."""

    name: str
    text: str
    tree: ast.Module

    def imports(self) -> Iterator[str]:
        """Every module that it names in an import, wherever that stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module

    def definitions(self) -> Iterator[tuple[str, Function | ast.ClassDef]]:
        """Every class and function with its dotted name within the file."""
        yield from _definitions(self.tree, "")


def _definitions(node: ast.AST, within: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        inner = within
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{within}{child.name}."
            yield inner[:-1], child
        yield from _definitions(child, inner)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def sources() -> tuple[Source, ...]:
    """The whole package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Source(path.relative_to(PACKAGE).as_posix(), text, ast.parse(text)))
    assert len(found) > 100
    return tuple(found)


@pytest.fixture(scope="session")
def tracked() -> dict[str, str]:
    """The text of every file that git keeps, by path; binary files are left out. Skips where there is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    found = {}
    for name in listed.stdout.decode().split("\0"):
        try:
            found[name] = (ROOT / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # deleted in the working tree, a folder's name, or no text
    return found
