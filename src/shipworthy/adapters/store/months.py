"""The months of the record: each has a table, made before its first row comes, so that retention can drop it as a whole.

A row whose month has no table lands in the default partition. That is not lost, but stands in the way of the month's own; so
first what is there is moved out, a bounded number of months at a time, and then the months to come are made.
"""

from __future__ import annotations

from typing import LiteralString

from msgspec import Struct
from psycopg.rows import TupleRow

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store, StoreRole
from shipworthy.model.errors import StoreUnavailable

MONTHS_AHEAD = 2
MENDED_MAX = 24
"""Months moved out of default partitions at once, of all tables together."""
MENDED_BYTES_MAX = 64 << 20
"""A default partition that is larger would keep others waiting for longer than a statement may run."""


class Prepared(Struct, frozen=True):
    """What was made, mended or left, in words. ``complete`` False: somebody was in the way, and the next look will do."""

    said: tuple[str, ...]
    complete: bool


async def prepare_months(store: Store) -> Prepared:
    """Makes the tables of this month and the next. Never raises for a store that is away or busy: months are made ahead."""
    said: dict[str, None] = {}
    try:
        for _ in range(MENDED_MAX):
            answers = await _asked(store, "mend_partitions", {"bytes_max": MENDED_BYTES_MAX})
            said |= dict.fromkeys(f"{name} {state}" for name, state in answers)
            if not any(state == "mended" for _, state in answers):
                break
        answers = await _asked(store, "prepare_partitions", {})
        said |= dict.fromkeys(f"{name} {state}" for name, state in answers)
    except StoreUnavailable as busy:  # a backup, say, that holds every table for hours
        return Prepared((*said, f"not now: {busy}"), complete=False)
    return Prepared(tuple(said), complete=True)


async def _asked(store: Store, block: LiteralString, asked: dict[str, int]) -> list[TupleRow]:
    async def question(conn: Connection, _: bool) -> list[TupleRow]:
        return await (await conn.execute(blocks("sweep")[block], {"months_ahead": MONTHS_AHEAD, **asked})).fetchall()

    return await store.ask(StoreRole.OPERATOR, question)
