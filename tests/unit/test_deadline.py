"""A deadline over many waits: late once, late ever after, and nobody else's cancel is taken for it."""

from __future__ import annotations

import asyncio

import pytest

from shipworthy.stages.deadline import Deadline, Deadlines


def after(seconds: float, among: Deadlines | None = None) -> Deadline:
    deadlines = among or Deadlines(asyncio.get_running_loop())
    return deadlines.begin(deadlines.loop.time() + seconds)


def test_waits_before_it_end_as_they_do() -> None:
    async def scene() -> None:
        deadline = after(5)
        for _ in range(3):
            with deadline:
                await asyncio.sleep(0)
        with pytest.raises(KeyError), deadline:
            raise KeyError
        deadline.close()

    asyncio.run(scene())


def test_when_it_comes_the_wait_ends_and_every_later_one_too() -> None:
    async def scene() -> None:
        deadline = after(0.02)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(5)
        with pytest.raises(TimeoutError), deadline:
            raise AssertionError("nothing is waited for")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    asyncio.run(scene())


def test_between_two_waits_it_cancels_nobody() -> None:
    async def scene() -> None:
        deadline = after(0.01)
        await asyncio.sleep(0.03)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(5)

    asyncio.run(scene())


def test_a_cancel_stays_a_cancel() -> None:
    async def waits(deadline_s: float) -> None:
        with after(deadline_s):
            await asyncio.sleep(5)

    async def scene() -> None:
        task = asyncio.create_task(waits(5))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        both = asyncio.create_task(waits(0.02))
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.01, both.cancel)
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both

    asyncio.run(scene())


def test_closed_it_never_comes() -> None:
    async def scene() -> None:
        deadline = after(0.01)
        deadline.close()
        with deadline:
            await asyncio.sleep(0.03)

    asyncio.run(scene())


def test_one_timer_rings_for_all_of_a_loop_in_any_order() -> None:
    async def wait(deadline: Deadline) -> float:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(5)
        return asyncio.get_running_loop().time() - began

    async def scene() -> None:
        deadlines = Deadlines(asyncio.get_running_loop())
        seconds = (0.09, 0.03, 0.06, 0.03)
        waits = [asyncio.create_task(wait(after(each, deadlines))) for each in seconds]
        closed = after(0.01, deadlines)
        closed.close()
        waited = await asyncio.gather(*waits)
        assert waited[1] < waited[2] < waited[0] and waited[3] < waited[2]

    asyncio.run(scene())


def test_put_off_it_comes_at_the_later_moment_only() -> None:
    async def scene() -> None:
        deadline = after(0.01)
        deadline.put_off(deadline.at_s + 0.05)
        with deadline:
            await asyncio.sleep(0.03)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(5)

    asyncio.run(scene())
