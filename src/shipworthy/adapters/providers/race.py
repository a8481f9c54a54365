"""Several ways to the same end, tried side by side: the next one begins when the last is slow or has failed (RFC 8305)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

STAGGER_S = 0.25


class Abortable(Protocol):
    """What is won in a race, and given up by whoever comes second."""

    def abort(self) -> None: ...


Prize = TypeVar("Prize", bound=Abortable)


async def first_of(ways: Sequence[str], attempt: Callable[[str], Awaitable[Prize]]) -> Prize:
    """What the first attempt to succeed gives; all others are ended. Raises the first failure when every one fails."""
    if len(ways) == 1:
        return await attempt(ways[0])
    begun: list[asyncio.Task[Prize]] = []
    won: asyncio.Task[Prize] | None = None
    try:
        for way in ways:
            begun.append(asyncio.ensure_future(_awaited(attempt, way)))
            if won := await _winner(begun, STAGGER_S):
                return won.result()
        while won is None and any(not task.done() for task in begun):
            won = await _winner(begun, None)
        return (won or begun[0]).result()
    finally:
        for task in begun:
            if task is not won:
                task.cancel()
                task.add_done_callback(_given_up)


async def _awaited(attempt: Callable[[str], Awaitable[Prize]], way: str) -> Prize:
    return await attempt(way)


async def _winner(begun: Sequence[asyncio.Task[Prize]], patience_s: float | None) -> asyncio.Task[Prize] | None:
    running = [task for task in begun if not task.done()]
    if running:
        await asyncio.wait(running, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    return next((task for task in begun if task.done() and not task.cancelled() and task.exception() is None), None)


def _given_up(task: asyncio.Task[Prize]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
