"""Docs that can fail, second part: links lead somewhere, commands exist, pictures draw, the two commands stand."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from ruamel.yaml import YAML

from shipworthy.cli.main import app
from shipworthy.manifest.shape import Manifest
from shipworthy.manifest.shape_models import ProviderShape
from shipworthy.manifest.shaping_words import keys_at
from shipworthy.standard import PROVIDERS

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CONSOLE = re.compile(r"^\s*```console\n(.*?)^\s*```", re.DOTALL | re.MULTILINE)
SET_UP = {
    "## Run it": "./scripts/install && .venv/bin/shipworthy demo",
    "## Test it": "./scripts/install local,test && ./scripts/test",
}
"""The two commands that a newcomer needs, from a clone."""

SVG = "{http://www.w3.org/2000/svg}"


def pages(root: Path) -> list[Path]:
    return [*sorted((root / "docs").rglob("*.md")), *sorted(root.glob("*.md"))]


def anchors(text: str) -> set[str]:
    """What headings can be linked to as, by the rule that GitHub and MkDocs share for these."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_links_lead_somewhere(root: Path) -> None:
    """Every relative link has its file, and every anchor its heading."""
    broken = []
    for page in pages(root):
        for found in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
            target = found[1] or found[2]
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
                broken.append(f"{page.relative_to(root)}: {target}")
    assert broken == []


def test_every_page_is_in_the_index(root: Path) -> None:
    """What is written can be found: in the site's navigation and from the first page."""
    site, first = (root / "mkdocs.yml").read_text(), (root / "docs/index.md").read_text()
    for page in (root / "docs").rglob("*.md"):
        name = page.relative_to(root / "docs").as_posix()
        assert f"- {name}\n" in site, name
        assert name == "index.md" or f"]({name})" in first, name


def commands(root: Path) -> Iterator[tuple[str, str]]:
    """Every shell line of the docs, with its page."""
    for page in pages(root):
        for block in CONSOLE.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                if line.strip().startswith("$ "):
                    yield page.name, line.strip()[2:]


def invocations(line: str) -> Iterator[list[str]]:
    """The words of each call of `shipworthy` in a shell line, substitutions included."""
    for call in re.findall(r"(?<![\w./-])(?:\.venv/bin/)?shipworthy ([^|>;&)]*)", line):
        yield shlex.split(re.split(r"\$\(", call)[0], posix=True)


def test_commands_exist(root: Path) -> None:
    """Every `shipworthy …` in the docs is a verb with options that it has."""
    top, seen = typer.main.get_command(app), 0
    for page, line in commands(root):
        if page == "cli.md":
            continue  # generated from the same verbs, with placeholders
        for words in invocations(line):
            command: Any = top
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            said = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
            assert not getattr(command, "commands", None) or said, f"{page}: {line}"
            assert said <= known, f"{page}: {line}"
            seen += 1
    assert seen > 20


def test_the_tutorial_can_be_run(root: Path) -> None:
    """A script that takes the `$` lines of the tutorial one by one meets every step, from install to stop."""
    text = (root / "docs/tutorial/first-gateway.md").read_text()
    lines = [line[2:] for block in CONSOLE.findall(text) for line in block.splitlines() if line.startswith("$ ")]
    assert not [line for block in CONSOLE.findall(text) for line in block.splitlines() if not line.startswith("$ ")]
    story = ["install", "shipworthy init", "shipworthy check", "shipworthy serve", "shipworthy token mint", "curl",
             "shipworthy audit show", "shipworthy cost report", "shipworthy key create", "kill"]  # fmt: skip
    at = [next((n for n, line in enumerate(lines) if step in line), -1) for step in story]
    assert -1 not in at
    assert at == sorted(at)


def unknown_keys(said: Any, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Keys of a piece of a manifest that stand where none of that name may."""
    if isinstance(said, list):
        for index, each in enumerate(said):
            yield from unknown_keys(each, (*path, index))
    elif isinstance(said, dict):
        kind = said.get("kind") if path[:1] == ("providers",) and len(path) == 2 else None
        known = set(keys_at(path, PROVIDERS[kind].Config if kind in PROVIDERS else None))
        for key, value in said.items():
            if known and key not in known:
                yield ".".join(map(str, (*path, key)))
            if not (kind and key not in ProviderShape.model_fields):
                yield from unknown_keys(value, (*path, key))


def test_manifests_in_the_docs_are_of_this_version(root: Path) -> None:
    """Every piece of a manifest that the docs show has only keys that exist."""
    seen = 0
    for page in pages(root):
        for block in re.findall(r"^ *```yaml\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            said = YAML(typ="safe").load(textwrap.dedent(block))
            if set(said) <= set(Manifest.model_fields):
                seen += 1
                assert list(unknown_keys(said)) == [], page.name
    assert seen >= 5
    assert list(unknown_keys({"tenants": {"a": {"budgt": {}}}})) == ["tenants.a.budgt"]


@pytest.mark.parametrize("heading", SET_UP)
def test_two_commands(heading: str, root: Path) -> None:
    """README has exactly two set-up commands, each one fenced block of one line under its heading."""
    readme = (root / "README.md").read_text()
    section = re.split(r"^## ", readme.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```\w*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert blocks == [SET_UP[heading] + "\n"]


def test_pictures(root: Path) -> None:
    """Pictures are well-formed, say what they show, and have colours for light and dark."""
    drawn = sorted((root / "docs/pictures").glob("*.svg"))
    assert drawn
    for path in drawn:
        picture = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert picture.tag == f"{SVG}svg", path.name
        assert picture.find(f"{SVG}title") is not None, path.name
        assert "prefers-color-scheme: dark" in path.read_text(), path.name
        assert "<script" not in path.read_text(), path.name
        assert any(path.name in page.read_text() for page in pages(root)), f"{path.name} is shown nowhere"


def test_the_map_is_of_this_land(root: Path) -> None:
    """ARCHITECTURE.md names files that exist, every room, every folder of adapters and every stage."""
    text, package = (root / "ARCHITECTURE.md").read_text(), root / "src/shipworthy"
    named = re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|md|sql))`", text)
    assert len(named) > 20
    assert [name for name in named if not ((package / name).exists() or (root / name).exists())] == []
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    folders = {f"adapters/{path.name}" for path in (package / "adapters").iterdir() if (path / "__init__.py").exists()}
    stages = {f"stages/{path.name}" for path in (package / "stages").glob("[a-z]*.py")}
    assert [name for name in sorted(rooms | folders | stages) if name not in text] == []


def test_every_house_test_says_what_it_keeps(root: Path) -> None:
    """A test's docstring says which promise it keeps (style: habits)."""
    for path in (root / "tests/house").glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
