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

    async def run_async(op: Op, *args: Any) -> Any:
        start_ns = op.elapsed_ns()
        try:
            said = await run(op, *args)  # type: ignore[call-arg,arg-type,misc]
        except BaseException as reason:
            note(op, start_ns, reason.code if isinstance(reason, Refusal) else "")
            raise
        op.steps.append(Step(stage, start_ns, op.elapsed_ns() - start_ns))
        return said

    def run_sync(op: Op, *args: Any) -> Any:
        start_ns = op.elapsed_ns()
        try:
            said = run(op, *args)  # type: ignore[call-arg,arg-type]
        except BaseException as reason:
            note(op, start_ns, reason.code if isinstance(reason, Refusal) else "")
            raise
        op.steps.append(Step(stage, start_ns, op.elapsed_ns() - start_ns))
        return said

    return run_async if inspect.iscoroutinefunction(run) else run_sync  # type: ignore[return-value]
