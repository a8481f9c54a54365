"""Whether a deployment can do its work here and now: one finding a check, worst first in the exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

from msgspec import Struct

from shipworthy.model.errors import ShipworthyError, StartRefused

CHECK_S_MAX = 10.0


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Struct, frozen=True):
    """What one check saw, and what to do about it."""

    check: str
    level: Level
    saw: str
    hint: str = ""


class Check(Struct, frozen=True):
    """A named question; ``ask`` returns what it saw, or raises StartRefused with what is wrong."""

    name: str
    ask: Callable[[], Awaitable[str]]
    hint: str = ""
    soft: bool = False  # a failure is a warning


async def examine(checks: Sequence[Check]) -> list[Finding]:
    """Every check's finding, in order. No check can stop the others, or wait for longer than 10 s."""
    return [await _examine(check) for check in checks]


async def _examine(check: Check) -> Finding:
    failed = Level.WARNING if check.soft else Level.PROBLEM
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            return Finding(check.name, Level.OK, await check.ask())
    except StartRefused as refused:
        return Finding(check.name, failed, f"{refused.code}: {refused.message}", refused.hint or check.hint)
    except TimeoutError:
        return Finding(check.name, failed, f"no answer within {CHECK_S_MAX:.0f} s", check.hint)
    except (ShipworthyError, OSError) as reason:
        return Finding(check.name, failed, str(reason) or type(reason).__name__, check.hint)
