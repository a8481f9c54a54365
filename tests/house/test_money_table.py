"""The table of benchmarks/money.py in the docs: whole, of every scene, and of a run in which money was exact."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SCENES = ["calm, strict", "calm, relaxed", "fire, strict", "fire, relaxed"]
USED_MIN = 95.0
BEGIN, END = "<!-- begin: benchmarks/money.py -->\n", "<!-- end: benchmarks/money.py -->\n"


@pytest.fixture(scope="module")
def table(root: Path) -> dict[str, dict[str, str]]:
    """Every figure by its name and scene."""
    text = (root / "docs/explanation/how-money-stays-exact.md").read_text(encoding="utf-8")
    lines = text.partition(BEGIN)[2].partition(END)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["", *SCENES]
    assert {len(line) for line in cells} == {len(SCENES) + 1}
    return {name: dict(zip(SCENES, figures, strict=True)) for name, *figures in cells[2:]}


def test_every_scene_is_told(table: dict[str, dict[str, str]]) -> None:
    """All figures that the script prints stand there: nothing was left out by hand."""
    assert len(table) >= 18
    assert all(figure for figures in table.values() for figure in figures.values())


def test_money_was_exact(table: dict[str, dict[str, str]]) -> None:
    """What the page says above the table is what the table says."""
    used = [name for name in table if name.startswith("charged of the cap")]
    assert len(used) == 3
    for scene in SCENES:
        for name in used:
            percent = re.search(r"\(([\d.]+) %\)", table[name][scene])
            assert percent is not None
            assert float(percent[1]) >= USED_MIN, (name, scene)
        assert table["beyond a cap, without overruns"][scene] == "$0.000000000"
        assert table["deadlocks"][scene] == "0"
        assert table["rows that differ from it"][scene] == "0"
    for scene in ("calm, strict", "calm, relaxed", "fire, strict"):
        assert table["served and lost"][scene].startswith("0 requests"), scene
    for scene in ("fire, strict", "fire, relaxed"):
        assert int(table["workers killed"][scene]) > 50, scene
