"""Promise: the hot path stays light. How many instructions a request takes is counted, which no busy machine can change.

When this fails after a change that is worth its weight, say so in the commit and write the new figure here.
"""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

import pytest

HEAVIER_MAX = 1.2
"""How much heavier than the figure beside it a request may become before somebody has to look."""
WEIGHTS = {  # instructions of the interpreter a request, by version: whole, stream of 32 events
    (3, 11): (7_000, 14_900),
}
WARM, COUNTED = 80, 20


def instructions(whole_path: Any, *, stream: bool) -> float:
    """Of the interpreter, a request on a warm path; in this thread alone."""
    count = 0

    def step(frame: FrameType, event: str, _: object) -> object:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return step

    async def scene() -> None:
        path = whole_path(stream=stream)
        for number in range(WARM):
            await path.serve(number)
        before = sys.gettrace()
        sys.settrace(step)
        try:
            for number in range(COUNTED):
                await path.serve(WARM + number)
        finally:
            sys.settrace(before)

    asyncio.run(scene())
    return count / COUNTED


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_is_no_heavier_than_it_was(whole_path: Any, stream: bool) -> None:
    version = sys.version_info[:2]
    if version not in WEIGHTS:
        pytest.skip(f"instructions differ between versions of Python, and nobody has counted those of {version}")
    counted = instructions(whole_path, stream=stream)
    known = WEIGHTS[version][stream]
    assert counted <= known * HEAVIER_MAX, f"{counted:.0f} instructions a request, {known} were known"
    assert counted > known / 2, f"{counted:.0f} instructions instead of {known}: write the new figure down"
