"""Money under fire, briefly: benchmarks/money.py with fewer clients and a shorter fire, on real processes.

Two servers of two workers share one PostgreSQL. Workers are killed each second, the store is restarted twice and paused,
clocks are stepped, clients leave, the provider lies; then rows, counters and the provider's log are compared line by line.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
CLIENTS = 120
CAP_USD = 0.8


@pytest.fixture(scope="module")
def scene_room() -> Iterator[Any]:
    sys.path.insert(0, BENCHMARKS)
    try:
        import money_scene

        yield money_scene
    finally:
        sys.path.remove(BENCHMARKS)


@pytest.fixture(scope="module")
def database(scene_room: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL that may be killed and paused."""

    from money_ground import Database

    base = Path(
        tempfile.mkdtemp(prefix="money-")
    )  # short: a socket's path has a bound; open: PostgreSQL's account enters
    base.chmod(0o755)
    try:
        database = Database(base)
        try:
            yield database
        finally:
            database.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["strict", "relaxed"])
def test_money_is_exact_whatever_is_killed(scene_room: Any, database: Any, tmp_path: Path, mode: str) -> None:
    """No admission beyond a cap, every line of the provider's log has its row; relaxed loses no more than
    its window. What `wrong` would say, and when, is in tests/unit/test_money_books.py."""
    from money_fire import SHORT

    scene = scene_room.Scene(
        "fire", mode, CLIENTS, cap_usd=CAP_USD, latency_s=(0.1, 0.8), quiet_s=4.0,
        lies_percent=5, leave_share=1 / 3, used_min=0.5, lost_ms_max=10_000, script=SHORT,
    )  # fmt: skip
    ended = scene_room.play(scene, tmp_path, database, servers=2, workers=2)
    assert ended.wrong == [], ended.story()
    assert len(ended.fire.kills) >= 5, ended.story()
    assert (ended.fire.restarts, ended.fire.steps) == (2, len(SHORT.steps)), ended.story()
    assert ended.books.compared > 100, ended.story()
    assert ended.books.presumed > 0, ended.story()
    assert ended.ends["left"] > 0, ended.story()
    assert ended.books.overrun_rows > 0, ended.story()
