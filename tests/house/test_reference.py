"""Docs that can fail: everything that the code can say or be told has its line in the reference (style 12)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from shipworthy import ports
from shipworthy.adapters.telemetry.logs import event_name
from shipworthy.cli.main import app
from shipworthy.control.audit import FLAG_WORDS
from shipworthy.manifest.schema import all_keys, json_schema
from shipworthy.model.conditions import FACTS
from shipworthy.model.errors import FailureKind
from shipworthy.model.exchange import Bodies, Outcome, Row
from shipworthy.model.observation import Observation
from shipworthy.model.route import Strategy
from shipworthy.standard import PROVIDERS

HEADER = re.compile(r"\"(?:%b)?((?:x-(?!content|frame)|idempotency|traceparent|authorization|api-key)[a-z-]*)(?:\"|: )")


@pytest.fixture(scope="module")
def reference(root: Path) -> dict[str, str]:
    """The pages of the reference, by name without ending."""
    return {path.stem: path.read_text(encoding="utf-8") for path in (root / "docs/reference").glob("*.md")}


def test_the_reference_is_as_the_code_says(root: Path) -> None:
    """`scripts/docs` writes exactly what is committed."""
    ran = subprocess.run(
        [sys.executable, "docs/generate", "--check"], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_key(reference: dict[str, str]) -> None:
    """Every key of the manifest has a line."""
    assert [key for key in all_keys() if f"| `{key}` |" not in reference["manifest"]] == []


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
def test_every_setting(kind: str, reference: dict[str, str]) -> None:
    """Every setting of every kind of provider has a line below its kind."""
    own = PROVIDERS[kind].Config.model_fields
    section = reference["manifest"].partition(f"### kind: {kind}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    assert [key for key in own if f"| `{key}` |" not in section] == []


def test_every_verb_and_option(reference: dict[str, str]) -> None:
    """Every verb has a heading, every option a line below it."""
    missing = []

    def walk(command: Any, path: str) -> None:
        section = re.search(rf"\n###? {re.escape(path)}\n(.*?)(?=\n##|\Z)", reference["cli"], re.DOTALL)
        if section is None:
            missing.append(path)
            return
        for parameter in command.params:
            said = (
                parameter.opts[-1]
                if parameter.opts[0].startswith("-")
                else (parameter.metavar or parameter.name.upper())
            )
            if not parameter.hidden and said.strip("[]") not in section[1]:
                missing.append(f"{path} {said}")
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")

    walk(typer.main.get_command(app), "shipworthy")
    assert missing == []


def test_every_observation(reference: dict[str, str]) -> None:
    """Whatever the program can say is found by the name that stands in the log."""
    page = reference["metrics-and-logs"]
    assert [kind for kind in get_args(Observation) if f"| `{event_name(kind)}` |" not in page] == []


def test_every_metric(reference: dict[str, str], sources: Any) -> None:
    """Every metric that families.py makes has a line."""
    source = next(source for source in sources if source.name == "adapters/telemetry/families.py")
    made = {
        str(node.args[0].value)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("_counter", "_histogram", "_gauge")
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(made) > 10
    assert [name for name in made if f"`shipworthy_{name}" not in reference["metrics-and-logs"]] == []


def test_every_port_and_stage(reference: dict[str, str]) -> None:
    """Every Protocol and every stage has a line."""
    made = [
        name
        for name, port in vars(ports).items()
        if getattr(port, "_is_protocol", False) and port.__module__ == ports.__name__
    ]
    assert [name for name in made if f"\n## {name}\n" not in reference["ports"]] == []
    assert [stage for stage in ports.Stages.__slots__ if f"| `{stage}` |" not in reference["ports"]] == []


def test_every_header(reference: dict[str, str], sources: Any) -> None:
    """Every header that the edge reads or writes has a line."""
    used = {name for source in sources if source.name.startswith("http/") for name in HEADER.findall(source.text)}
    assert len(used) >= 20
    assert [name for name in used if f"| `{name}` |" not in reference["http"]] == []


def test_every_fact_strategy_and_failure(reference: dict[str, str]) -> None:
    """What a condition may ask, how a route may be ordered, how a provider may fail."""
    assert [fact for fact in FACTS if f"| `{fact}` |" not in reference["conditions"]] == []
    assert [each for each in Strategy if f"| `{each}` |" not in reference["routing"]] == []
    assert [each for each in FailureKind if f"| `{each.value}` |" not in reference["errors"]] == []


def test_every_field_of_the_record(root: Path) -> None:
    """Each field, outcome and flag of the row is explained: what an auditor finds there is no riddle."""
    page = (root / "docs/explanation/what-a-record-holds.md").read_text()
    for name in (*Row.__struct_fields__, *Bodies.__struct_fields__, *Outcome, *FLAG_WORDS):
        assert f"`{name}`" in page, name


def test_what_is_not_built_is_said(reference: dict[str, str]) -> None:
    """A key whose capability does not exist says so where it is looked up."""
    text = str(json_schema(PROVIDERS))
    assert text.count("'deprecated': True") > 5
    for key in (
        "use_cases.NAME.guards",
        "use_cases.NAME.prompt",
        "corpora",
    ):
        line = next(line for line in reference["manifest"].splitlines() if line.startswith(f"| `{key}` |"))
        assert "not available in this version" in line
