"""One file a case: the manifest (and files beside it), dashes, every problem. Promise: all problems at once, with lines.

``REWRITE_GOLDENS=1 pytest tests/golden/manifest`` writes what is said now; read the diff before you commit it.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from shipworthy.adapters.policy.cel import compile_condition
from shipworthy.manifest.load import load
from shipworthy.manifest.problem import ManifestRefused
from shipworthy.manifest.specs import Config, Secret, Spec
from shipworthy.model.money import Component, Price
from shipworthy.model.route import Boundary, Network

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))
RULE = "-" * 10
FILE = "=== "
ENVIRON = {
    "OPENAI_API_KEY": "not-a-real-key",
    "ALERTS_SECRET": "not-a-real-key-of-16-bytes",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    "EMPTY": "",
}
TODAY = date(2026, 11, 21)


class RemoteConfig(Config):
    """Settings such as a remote provider's."""

    base_url: str = ""
    credentials: Secret | None = None


class ChildConfig(Config):
    """Settings such as a local model's."""

    threads: int = 1


SPECS = {
    "openai": Spec("openai", RemoteConfig, object),
    "openai-compatible": Spec("openai-compatible", RemoteConfig, object),
    "local-child": Spec("local-child", ChildConfig, object, Boundary((), Network.LOCAL, False, 0)),
}


def price_of(provider_kind: str, upstream: str, base_url: str) -> Price | None:
    if provider_kind == "openai" and upstream.startswith("gpt-"):
        return Price({Component.INPUT: 400_000, Component.OUTPUT: 1_600_000}, "a table")
    return None


def said_of(text: str, folder: Path) -> str:
    """What load says of the files in ``text``."""
    name = "shipworthy.yaml"
    files: dict[str, list[str]] = {name: []}
    for line in text.splitlines(keepends=True):
        if line.startswith(FILE):
            name = line.removeprefix(FILE).strip()
            files[name] = []
        else:
            files[name].append(line)
    for name, lines in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="")
    try:
        warnings = load(Path("shipworthy.yaml"), ENVIRON, SPECS, compile_condition, price_of, today=TODAY).warnings
        said = ["accepted", *map(str, warnings)]
    except ManifestRefused as refused:
        said = ["refused", *map(str, refused.problems)]
    return "".join(f"{line}\n" for line in said).replace(str(folder), ".")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_is_said(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, _, expected = case.read_text(encoding="utf-8").partition(f"{RULE}\n")
    said = said_of(text, tmp_path)
    if os.environ.get("REWRITE_GOLDENS"):
        case.write_text(f"{text}{RULE}\n{said}", encoding="utf-8")
        expected = said
    assert said == expected
    assert said.startswith("accepted") or "problem: " in said
    for secret in ("not-a-real-key", "sk-literal"):
        assert secret not in said


def test_there_are_cases() -> None:
    assert len(CASES) >= 60
