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

    def refused(op: Op, began_ns: int, reason: BaseException) -> None:
        code = reason.code if isinstance(reason, Refusal) else ""
        op.steps.append(Step(stage, began_ns - op.began_ns, op.clock.monotonic_ns() - began_ns, refused=code))

    async def run_async(op: Op, *args: Any) -> Any:
        now_ns = op.clock.monotonic_ns
        began_ns = now_ns()
        try:
            said = await run(op, *args)  # type: ignore[call-arg,arg-type,misc]
        except BaseException as reason:
            refused(op, began_ns, reason)
            raise
        op.steps.append(Step(stage, began_ns - op.began_ns, now_ns() - began_ns))
        return said

    def run_sync(op: Op, *args: Any) -> Any:
        now_ns = op.clock.monotonic_ns
        began_ns = now_ns()
        try:
            said = run(op, *args)  # type: ignore[call-arg,arg-type]
        except BaseException as reason:
            refused(op, began_ns, reason)
            raise
        op.steps.append(Step(stage, began_ns - op.began_ns, now_ns() - began_ns))
        return said

    return run_async if inspect.iscoroutinefunction(run) else run_sync  # type: ignore[return-value]
