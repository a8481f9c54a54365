"""Administrative acts in the store: rows that are only ever added."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from psycopg.types.json import Jsonb

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store
from shipworthy.ports import AdminAct

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NS_PER_US = 1_000


class StoreActs:
    """An AdminRecorder. An act on the whole deployment is the operators'; one on a tenant is that tenant's."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def act(self, act: AdminAct) -> None:
        """Returns when the act is committed. Raises StoreUnavailable."""
        async with self._store.tenant(act.tenant) if act.tenant else self._store.operator() as conn:
            await record(conn, act)


async def record(conn: Connection, act: AdminAct) -> None:
    """Records ``act`` in the transaction of ``conn``, with what it did."""
    await conn.execute(
        blocks("acts")["record"],
        {
            "tenant": act.tenant,
            "at": moment(act.at_unix_ns),
            "id": act.id,
            "at_unix_ns": act.at_unix_ns,
            "actor": act.actor,
            "act": act.act,
            "target": act.target,
            "facts": Jsonb(dict(act.facts)),
        },
    )


def moment(unix_ns: int) -> datetime:
    """The time as the store keeps it, cut to the microsecond. Exact: no float is in between."""
    return EPOCH + timedelta(microseconds=unix_ns // NS_PER_US)
