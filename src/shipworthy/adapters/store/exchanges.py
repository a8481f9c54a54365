"""Reads of the record: one tenant's under row-level security, or every tenant's as the operator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

from psycopg import sql
from psycopg.rows import dict_row

from shipworthy.adapters.store.acts import EPOCH, moment
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.costs import UNIX_NS_MAX, cost
from shipworthy.adapters.store.pool import Connection, Store
from shipworthy.adapters.store.rows import COLUMNS, row_of
from shipworthy.adapters.store.vault import Sealed, Unsealable, Vault, Wrapped, unseal
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Bodies, Row
from shipworthy.model.reading import EVERY_TENANT, PAGE_ROWS_MAX, CostAsked, CostLine, Page, Place, Wanted

ARRIVED_UNIX_MS_MAX = UNIX_NS_MAX // 1_000_000  # an id may say anything
AT_MAX = datetime.max.replace(tzinfo=EPOCH.tzinfo)
LAST_ID = UUID(int=(1 << 128) - 1)


class StoreExchanges:
    """Exchanges. The caller has recorded the read."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        self._page = blocks("exchanges")["page"].format(columns=columns)
        self._get = blocks("exchanges")["get"].format(columns=columns)

    async def page(self, scope: str, wanted: Wanted, after: Place | None, limit: int) -> Page:
        limit = max(1, min(limit, PAGE_ROWS_MAX))
        asked: dict[str, object] = {
            "tenant": wanted.tenant,
            "team": wanted.team,
            "use_case": wanted.use_case,
            "model": wanted.model,
            "principal": wanted.principal,
            "outcome": wanted.outcome,
            "code": wanted.code,
            "after_at": EPOCH + timedelta(microseconds=after.arrived_unix_us) if after else AT_MAX,
            "after_id": after.id if after else LAST_ID,
            "limit": limit + 1,  # one more tells whether there are more
        }
        async with self._reading(scope) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            found = await cursor.execute(self._page, asked | _span(wanted.since_unix_ns, wanted.until_unix_ns))
            rows = tuple(row_of(record) for record in await found.fetchall())
        return Page(rows[:limit], Place.of(rows[limit - 1]) if len(rows) > limit else None)

    async def get(self, scope: str, exchange_id: UUID) -> Row | None:
        async with self._reading(scope) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            record = await (await cursor.execute(self._get, _found_by(exchange_id))).fetchone()
        return None if record is None else row_of(record)

    async def bodies(self, scope: str, exchange_id: UUID) -> Bodies | None:
        """None when nothing was kept, or its key was erased. Raises Refusal admin.unreadable when it does not open."""
        async with self._reading(scope) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            found = await cursor.execute(blocks("exchanges")["bodies"], _found_by(exchange_id))
            records = await found.fetchall()
        kept = [record for record in records if record["wrapped"] is not None]
        if not kept:
            return None
        try:
            parts = {str(record["part"]): self._open(exchange_id, record) for record in kept}
        except Unsealable as unsealable:
            raise Refusal("admin.unreadable", id=str(exchange_id), reason=str(unsealable)) from unsealable
        truncated = any(record["truncated"] for record in kept)
        return Bodies(parts.get("request", b""), parts.get("reply", b""), truncated)

    def _open(self, exchange_id: UUID, record: Mapping[str, object]) -> bytes:
        tenant, part, key_id, wrapped = record["tenant"], record["part"], record["key_id"], record["wrapped"]
        nonce, ciphertext = record["nonce"], record["ciphertext"]
        assert isinstance(tenant, str) and isinstance(part, str) and isinstance(key_id, UUID)
        assert isinstance(wrapped, bytes) and isinstance(nonce, bytes) and isinstance(ciphertext, bytes)
        key = self._vault.unwrap(tenant, Wrapped(key_id, str(record["kek_id"]), wrapped))
        return unseal(key, tenant, exchange_id, part, Sealed(key_id, nonce, ciphertext))

    async def cost(self, scope: str, asked: CostAsked) -> Sequence[CostLine]:
        async with self._reading(scope) as conn:
            return await cost(conn, asked)

    @asynccontextmanager
    async def _reading(self, scope: str) -> AsyncGenerator[Connection]:
        if not scope:
            raise ValueError("an empty scope is an error, never everything")
        async with self._store.operator() if scope == EVERY_TENANT else self._store.tenant(scope) as conn:
            yield conn


def _span(since_unix_ns: int, until_unix_ns: int) -> dict[str, object]:
    """Both bounds as exact numbers and as the partition key; 0 = unbounded."""
    until_unix_ns = until_unix_ns or UNIX_NS_MAX
    return {
        "since_at": moment(since_unix_ns),
        "since_unix_ns": since_unix_ns,
        "until_at": moment(until_unix_ns),
        "until_unix_ns": until_unix_ns,
    }


def _found_by(exchange_id: UUID) -> dict[str, object]:
    """An id and the stretch of time that its first 48 bits say."""
    arrived = EPOCH + timedelta(milliseconds=min(exchange_id.int >> 80, ARRIVED_UNIX_MS_MAX))
    return {"id": exchange_id, "from": arrived, "to": arrived + timedelta(milliseconds=1)}
