"""What bootstrap lays around every stage: a Step in its Op, whatever the stage does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from shipworthy.model.errors import Refusal
from shipworthy.model.op import Op, Step

P = ParamSpec("P")
T = TypeVar("T")


def timed(stage: str, run: Callable[P, T]) -> Callable[P, T]:
    """``run``, leaving a Step: when it began, how long it took, and with which code it refused."""

    def note(op: Op, start_ns: int, refused: str) -> None:
        op.steps.append(Step(stage, start_ns, op.elapsed_ns() - start_ns, refused=refused))

    async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
        op: Op = args[0]  # type: ignore[assignment]
        start_ns, refused = op.elapsed_ns(), ""
        try:
            return await run(*args, **kwargs)  # type: ignore[misc]
        except Refusal as refusal:
            refused = refusal.code
            raise
        finally:
            note(op, start_ns, refused)

    def run_sync(*args: P.args, **kwargs: P.kwargs) -> T:
        op: Op = args[0]  # type: ignore[assignment]
        start_ns, refused = op.elapsed_ns(), ""
        try:
            return run(*args, **kwargs)
        except Refusal as refusal:
            refused = refusal.code
            raise
        finally:
            note(op, start_ns, refused)

    return run_async if inspect.iscoroutinefunction(run) else run_sync  # type: ignore[return-value]
