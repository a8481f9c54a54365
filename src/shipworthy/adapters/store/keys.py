"""Service keys in the store. A key and the act that made or revoked it are one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs
from psycopg.rows import TupleRow

from shipworthy.adapters.store.acts import moment, record
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store
from shipworthy.ports import AdminAct, ServiceKey

LISTED_MAX = 10_000
CHANNEL = "shipworthy_keys"


class Looked(Struct, frozen=True):
    """A key as it was at a certain change of the table, counted from 1; None = there was no such key."""

    version: int
    key: ServiceKey | None


class StoreKeys:
    """A KeyStore."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, key_id: str) -> ServiceKey | None:
        return (await self.look(key_id)).key

    async def look(self, key_id: str) -> Looked:
        """The key and the number of the last change, at least as old as the key. Raises StoreUnavailable."""

        async def question(conn: Connection, _: bool) -> TupleRow | None:
            return await (await conn.execute(blocks("keys")["named"], {"id": key_id})).fetchone()

        row = await self._store.ask_ahead(question)
        assert row is not None, "named_service_key always answers with one row"
        version, *columns = row
        return Looked(int(version), _key(tuple(columns)) if columns[0] is not None else None)

    async def version(self) -> int:
        """The number of the last change of any key. Raises StoreUnavailable."""

        async def question(conn: Connection, _: bool) -> TupleRow | None:
            return await (await conn.execute(blocks("keys")["version"])).fetchone()

        row = await self._store.ask_ahead(question)
        assert row is not None, "key_change always holds one row"
        return int(row[0])

    async def create(self, key: ServiceKey, act: AdminAct) -> None:
        async with self._store.tenant(key.tenant) as conn:
            await record(conn, act)
            await conn.execute(blocks("keys")["create"], structs.asdict(key) | {"use_cases": list(key.use_cases)})

    async def list(self, tenant: str) -> Sequence[ServiceKey]:
        """The tenant's keys, newest first; at most LISTED_MAX."""
        async with self._store.tenant(tenant) as conn:
            rows = await conn.execute(blocks("keys")["list"], {"tenant": tenant, "limit": LISTED_MAX})
            return [_key(row) for row in await rows.fetchall()]

    async def revoke(self, tenant: str, key_id: str, act: AdminAct) -> bool:
        """True when this call took the key back; the act is recorded only then."""
        at = moment(act.at_unix_ns)
        async with self._store.tenant(tenant) as conn:
            revoked = await conn.execute(blocks("keys")["revoke"], {"tenant": tenant, "id": key_id, "at": at})
            if revoked.rowcount:
                await record(conn, act)
            return bool(revoked.rowcount)


def _key(row: TupleRow) -> ServiceKey:
    id_, tenant, name, role, use_cases, created_at, expires_at, revoked_at, created_by, secret_hmac = row
    return ServiceKey(
        id=id_,
        tenant=tenant,
        name=name,
        role=role,
        use_cases=tuple(use_cases),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        created_by=created_by,
        secret_hmac=bytes(secret_hmac),
    )
