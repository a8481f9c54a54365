"""Notifications from the store, on a connection of their own. They make things fast; nothing relies on one arriving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from psycopg import sql

from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.trouble import first_line
from shipworthy.model.observation import StoreDegraded
from shipworthy.model.op import Observe

RETRY_S_MIN = 0.5
RETRY_S_MAX = 30.0


async def listen(store: Store, channel: str, heard: Callable[[str], None], observe: Observe) -> None:
    """Calls ``heard`` with the payload of each notification on ``channel``, and with "" after each (re)connect, for ever.

    Cancel it to end. A lost connection is said once and made again, with growing waits.
    """
    wait_s = RETRY_S_MIN
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(store.conninfo(StoreRole.APP), autocommit=True) as conn:
                await conn.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                wait_s = RETRY_S_MIN
                heard("")  # what was notified while nobody listened
                async for notified in conn.notifies():
                    heard(notified.payload)
        except (psycopg.Error, OSError) as lost:
            if wait_s == RETRY_S_MIN:
                observe(StoreDegraded(f"listen {channel}", first_line(lost), 0))
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, RETRY_S_MAX)
