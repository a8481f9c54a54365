"""Promise: a request leaves nothing to the collector. What it held, its body among it, is gone when it has ended; a pause in
which cycles are looked for is one in which all streams stand still."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

WARM, COUNTED = 20, 20


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_leaves_nothing_to_the_collector(whole_path: Any, stream: bool) -> None:
    async def scene() -> int:
        path = whole_path(stream=stream)
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


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_waits_to_be_recorded_holds_no_connection(whole_path: Any, stream: bool) -> None:
    """It is let go by the writer's thread, and what belongs to the loop must not be."""

    async def scene() -> None:
        path, answers = whole_path(stream=stream), []
        (way,) = path.ways.values()
        post = way._transport.post

        async def posted(*given: Any, **named: Any) -> Any:
            answer = await post(*given, **named)
            answers.append(weakref.ref(answer))
            return answer

        way._transport.post = posted
        await path.serve(0)
        (entry,) = [kept for kept in path.queue.kept if hasattr(kept, "made")]
        assert entry._make is not None, "its row is not made yet"
        assert [answer() for answer in answers] == [None]

    asyncio.run(scene())
