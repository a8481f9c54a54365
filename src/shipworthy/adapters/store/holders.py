"""Who holds something in the store: asked once, at a start, for what servers before it left."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.rows import TupleRow

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store, StoreRole

HOLDERS_MAX = 1_000


async def holders(store: Store) -> Sequence[str]:
    """The workers that hold something, dead or alive; at most 1,000. Raises StoreUnavailable."""

    async def question(conn: Connection, _: bool) -> list[TupleRow]:
        return await (await conn.execute(blocks("sweep")["holders"], {"limit": HOLDERS_MAX})).fetchall()

    return [str(worker) for (worker,) in await store.ask(StoreRole.OPERATOR, question)]
