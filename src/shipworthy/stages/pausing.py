"""Who is paused reserves nothing: in front of the reserve stage, in every mode, because it is about money.

A repeat whose answer is stored was answered before, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shipworthy.model.chat import Request
from shipworthy.model.identity import Grant
from shipworthy.model.ledger import Hold
from shipworthy.model.op import Op

Check = Callable[[Op, Grant], Awaitable[None]]
"""Raises Refusal reserve.paused."""
Reserve = Callable[[Op, Grant, Request], Awaitable[Hold]]


def unless_paused(check: Check, reserve: Reserve) -> Reserve:
    """``reserve``, after the check."""

    async def reserve_unless_paused(op: Op, grant: Grant, request: Request) -> Hold:
        await check(op, grant)
        return await reserve(op, grant, request)

    return reserve_unless_paused
