"""What several tests of the hot path need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def whole_path(tmp_path: Path) -> Any:
    """Makes the path of benchmarks/whole_path.py, of whole answers or of streams."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from whole_path import WholePath
    finally:
        sys.path.remove(str(BENCHMARKS))
    return lambda *, stream: WholePath(tmp_path, stream=stream)
