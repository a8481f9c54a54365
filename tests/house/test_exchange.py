"""Promise: an Exchange is write-once. Only the pipeline assigns its nouns, each at one place of the path."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

NAMES = ("x", "exchange")
ENDINGS = {"outcome": 4, "refusal": 1, "replay_of": 1, "charge": 1}
"""Nouns that more than one branch of the end may write, and at how many places: a request passes one of them."""


def assigned(path: Path) -> Iterator[str]:
    """Attributes of what is called an exchange that ``path`` assigns, deletes or sets by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store | ast.Del)
            and isinstance(node.value, ast.Name)
            and node.value.id in NAMES
        ):
            yield node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            first = node.args[0]
            if isinstance(first, ast.Name) and first.id in NAMES:
                yield f"{node.func.id}()"


def test_only_the_pipeline_writes_an_exchange_and_each_noun_once(root: Path) -> None:
    """Promise: what is known of a request is written once, by its path alone."""
    from shipworthy.model.exchange import Exchange

    package = root / "src/shipworthy"
    for path in package.rglob("*.py"):
        if path != package / "pipeline.py":
            assert [name for name in assigned(path) if name in Exchange.__slots__ or "()" in name] == [], path
    written = Counter(assigned(package / "pipeline.py"))
    assert set(written) <= set(Exchange.__slots__)
    assert {name: times for name, times in written.items() if times != ENDINGS.get(name, 1)} == {}
