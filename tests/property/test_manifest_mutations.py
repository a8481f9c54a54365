"""Any mutation of a good manifest is taken or refused with file and line: nothing else is ever raised."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipworthy.adapters.policy.cel import compile_condition
from shipworthy.manifest.load import Loaded, load
from shipworthy.manifest.problem import ManifestRefused, Severity
from shipworthy.manifest.specs import Config, Secret, Spec
from shipworthy.manifest.tree import KeyPath, Value, read_tree
from shipworthy.model.money import Price

MANIFEST = (
    (Path(__file__).parents[1] / "golden/manifest/cases/design_complete.txt").read_text("utf-8").partition("-" * 10)[0]
)
BUILT = (Path(__file__).parents[1] / "golden/manifest/cases/design_built.txt").read_text("utf-8").partition("-" * 10)[0]
ENVIRON = {"OPENAI_API_KEY": "value", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([]), st.just({}), st.just([[]]),
    st.sampled_from([
        "", "*", "../..", "sk-x", "true", "class.internal", "{env: X}", "1e400", "-0.0", ".nan", "a\x1b[2Jb", "\ud800",
        10**400, -(2**63), {"env": "NOPE"}, {"file": "/nowhere"}, {"env": 5}, {"env": "A", "file": "B"}, ["support"] * 2,
        {"usd": 1, "per": "day"}, {"because": {"who": "x"}}, [{"id": "x", "when": "foo(", "models": ["small"]}],
    ]),
)  # fmt: skip


class AnyConfig(Config):
    """Settings of both kinds."""

    base_url: str = ""
    credentials: Secret | None = None


SPECS = {kind: Spec(kind, AnyConfig, object) for kind in ("openai", "openai-compatible")}


def price_of(provider_kind: str, upstream: str, base_url: str) -> Price | None:
    return None


def places(value: Value, path: KeyPath = ()) -> list[KeyPath]:
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [below for key in value for below in places(value[key], (*path, key))]
    if isinstance(value, list):
        return found + [below for index, item in enumerate(value) for below in places(item, (*path, index))]
    return found


def mutated(text: str, draw: st.DataObject) -> str:
    """The manifest with up to four places dropped, replaced, renamed, doubled or exchanged, as YAML's JSON subset."""
    tree = read_tree(text.encode(), "m.yaml").value
    for _ in range(draw.draw(st.integers(1, 4))):
        known = places(tree)
        if not known:
            break
        path = draw.draw(st.sampled_from(known))
        parent: Value = tree
        for key in path[:-1]:
            parent = parent[key]  # type: ignore[index, call-overload]
        mutate(parent, path[-1], known, tree, draw)
    return json.dumps(tree, indent=1, default=lambda value: float(value) if isinstance(value, Decimal) else str(value))


def mutate(parent: Value, key: str | int, known: list[KeyPath], tree: Value, draw: st.DataObject) -> None:
    kind = draw.draw(st.sampled_from(["drop", "replace", "rename", "double", "exchange"]))
    if isinstance(parent, list) and isinstance(key, int):
        if kind == "drop":
            del parent[key]
        elif kind == "double":
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(draw.draw(ODD))
    elif isinstance(parent, dict) and isinstance(key, str):
        if kind == "drop":
            del parent[key]
        elif kind == "rename":
            parent[draw.draw(st.text(max_size=12))] = parent.pop(key)
        elif kind == "exchange":
            other: Value = tree
            for step in draw.draw(st.sampled_from(known)):
                other = other[step]  # type: ignore[index, call-overload]
            parent[key] = json.loads(json.dumps(other, default=str))
        else:
            parent[key] = copy.deepcopy(draw.draw(ODD))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest")


def well_said(refused: ManifestRefused, file: str, text: str) -> ManifestRefused:
    """Every problem has its place and can be shown on any terminal."""
    assert any(problem.severity is Severity.PROBLEM for problem in refused.problems)
    for problem in refused.problems:
        assert problem.file == file
        assert 1 <= problem.line <= text.count("\n") + 2
        assert problem.what
        assert str(problem).isprintable()
    return refused


def check(folder: Path, text: str) -> Loaded | ManifestRefused:
    path = folder / "m.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        loaded = load(path, ENVIRON, SPECS, compile_condition, price_of)
    except ManifestRefused as refused:
        return well_said(refused, str(path), text)
    for use_case in loaded.snapshot.use_cases.values():
        assert use_case.models
        assert len(use_case.models) == len(use_case.weights)
        assert all(model.abilities >= use_case.abilities for model in use_case.models)
        assert 0 <= use_case.data_class < len(loaded.snapshot.data_classes)
    for tenant in loaded.snapshot.tenants.values():
        assert all(target in loaded.snapshot.use_cases for target in tenant.aliases.values())
        assert all(role.team.name in tenant.teams for role in tenant.roles)
        assert all(0 <= role.clearance < len(loaded.snapshot.data_classes) for role in tenant.roles)
    return loaded


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_mutated_manifest_is_taken_or_refused(folder: Path, data: st.DataObject) -> None:
    """Promise: a bad manifest never starts, and says where it is bad."""
    check(folder, mutated(data.draw(st.sampled_from([MANIFEST, BUILT])), data))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutated_bytes_are_taken_or_refused(folder: Path, data: st.DataObject) -> None:
    """The same for text that is cut, spliced and indented at random."""
    at, length = data.draw(st.integers(0, len(BUILT))), data.draw(st.integers(0, 60))
    odd = st.sampled_from(
        [
            "\t",
            "  ",
            "\n",
            "- ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "&a ",
            "*a",
            "!x ",
            "'",
            '"',
            "|",
            ">",
            "#",
            "%",
            "é",
            "\u2028",
        ]
    )
    check(folder, BUILT[:at] + "".join(data.draw(st.lists(odd, max_size=4))) + BUILT[at + length :])
