"""Refusals: a closed catalogue, each code with a status, a place in the docs, and somebody who raises it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from shipworthy.http.errors import STATUSES, WAITING_IS_FUTILE
from shipworthy.model.errors import CODES
from shipworthy.ports import Stages

BESIDE_STAGES = {
    "server": "before there is a pipeline for the request",
    "idempotency": "the stage dedupe, in the word of the header that causes it",
    "admin": "the control plane",
}


def test_every_code_has_a_status() -> None:
    """No refusal goes out with a guessed status, and no status stands for a code that is gone."""
    assert set(STATUSES) == set(CODES)
    assert set(CODES) >= WAITING_IS_FUTILE
    assert all(400 <= status < 600 for status in STATUSES.values())


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_heading(code: str, root: Path) -> None:
    """Whoever is refused finds the code in the reference (style 12)."""
    assert f"\n### `{code}`\n" in (root / "docs/reference/errors.md").read_text()


def test_families_are_stages() -> None:
    """A code's family is the stage that refused (design §8)."""
    families = {code.partition(".")[0] for code in CODES}
    assert families - set(Stages.__slots__) == set(BESIDE_STAGES)


def test_every_code_is_raised(sources: Any) -> None:
    """The catalogue holds nothing that cannot happen."""
    said = {
        node.value
        for source in sources
        if source.name not in ("model/errors.py", "http/errors.py")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert [code for code in CODES if code not in said] == []


def test_statuses_live_in_one_table(sources: Any) -> None:
    """Inner layers know no HTTP: a status is a number in http/errors, or what a provider answered (style 5)."""
    inner = ("model/", "stages/", "control/", "manifest/", "ports/", "pipeline.py")
    for source in sources:
        if source.name.startswith(inner):
            assert "HTTPStatus" not in source.text, source.name
            assert not any(name.startswith(("http", "shipworthy.http")) for name in source.imports()), source.name
