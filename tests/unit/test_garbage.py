"""Promise: a request leaves nothing to the collector. What it held, its body among it, is gone when it has ended; a pause in
which cycles are looked for is one in which all streams stand still."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WARM, COUNTED = 20, 20


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_leaves_nothing_to_the_collector(tmp_path: Path, stream: bool) -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from whole_path import WholePath
    finally:
        sys.path.remove(str(BENCHMARKS))

    async def scene() -> int:
        path = WholePath(tmp_path, stream=stream)
        for number in range(WARM):
            await path.serve(number)
        path.queue.kept.clear()
        gc.collect()
        gc.disable()
        try:
            for number in range(COUNTED):
                await path.serve(WARM + number)
            path.queue.kept.clear()
            return gc.collect()
        finally:
            gc.enable()

    left = asyncio.run(scene())
    assert left < COUNTED, f"{left / COUNTED:.1f} objects a request wait for the collector"
