"""One batch of ended exchanges on its way into the store: sealed, encoded, committed in one transaction.

Everything here blocks, and belongs in a thread: the recorder's or the sweeper's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from uuid import UUID

import psycopg
from msgspec import Struct, structs
from psycopg.rows import TupleRow, class_row

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.adapters.store.rows import clean_text, encode
from shipworthy.adapters.store.vault import DataKey, Sealed, Vault, Wrapped, seal
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.exchange import Outcome
from shipworthy.ports import Entry

KEY_TRIES_MAX = 3

Connection = psycopg.Connection[TupleRow]


class Part(Struct, frozen=True):
    """One sealed body of an exchange."""

    entry: Entry
    part: str
    sealed: Sealed
    truncated: bool


class BatchWriter:
    """Writes batches over one connection of its own, which is replaced when it turns out dead."""

    def __init__(self, conninfo: str, vault: Vault, now: Callable[[], datetime] | None = None) -> None:
        self._conninfo = conninfo
        self._vault = vault
        self._now = now
        self._sql = blocks("recorder")
        self._conn: Connection | None = None

    def write(self, entries: Sequence[Entry], *, presume: bool = False) -> frozenset[UUID]:
        """Commits all of ``entries`` or raises and commits none; returns the ids of the rows that are new.

        With ``presume`` an entry stands only where its hold still does. Raises psycopg's errors.
        """
        conn = self._connected()
        try:
            parts = [part for entry in entries for part in self._seal(conn, entry)]
            asked = [
                self._question(tenant, list(group), parts, presume)
                for tenant, group in groupby(sorted(entries, key=_tenant_of), key=_tenant_of)
            ]
            if len(asked) == 1:
                return _ids(conn.execute(self._sql["settle"], asked[0]))
            with conn.pipeline(), conn.transaction():
                answers = [conn.execute(self._sql["settle"], question) for question in asked]
            return frozenset().union(*map(_ids, answers))
        except psycopg.Error:
            if conn.broken or conn.closed:
                self.disconnect()
            raise

    def disconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _connected(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        return self._conn

    def _question(self, tenant: str, entries: list[Entry], parts: list[Part], presume: bool) -> dict[str, object]:
        ours = [part for part in parts if part.entry.row.tenant == tenant]
        hashes = {(part.entry.row.id, part.part): hashlib.sha256(part.sealed.ciphertext).hexdigest() for part in ours}
        return {
            "tenant": tenant,
            "entries": "[" + ",".join(_entry_json(entry, hashes) for entry in entries) + "]",
            "presume": presume,
            "now": self._now() if self._now else None,
            "body_ids": [part.entry.row.id for part in ours],
            "body_parts": [part.part for part in ours],
            "body_keys": [part.sealed.key_id for part in ours],
            "body_nonces": [part.sealed.nonce for part in ours],
            "body_texts": [part.sealed.ciphertext for part in ours],
            "body_cut": [part.truncated for part in ours],
        }

    def _seal(self, conn: Connection, entry: Entry) -> list[Part]:
        if entry.bodies is None:
            return []
        row, bodies = entry.row, entry.bodies
        key = self._data_key(conn, row.tenant, clean_text(row.subject))
        sides = (("request", bodies.request), ("reply", bodies.reply))
        return [
            Part(entry, part, seal(key, row.tenant, row.id, part, clear), bodies.truncated)
            for part, clear in sides
            if clear
        ]

    def _data_key(self, conn: Connection, tenant: str, subject: str) -> DataKey:
        """The key with which to seal what this subject says: cached, stored, or new. Committed before it is used."""
        cached = self._vault.cached(tenant, subject)
        if cached is not None:
            return cached
        for _ in range(KEY_TRIES_MAX):
            with conn.transaction():
                stored = self._newest(conn, tenant, subject)
                if stored is None or stored.wrapped is None:  # none yet, or erased
                    drawn = self._vault.draw(tenant, stored.generation + 1 if stored else 1)
                    conn.execute(
                        self._sql["add_data_key"], {"tenant": tenant, "subject": subject, **structs.asdict(drawn)}
                    )
                    stored = self._newest(conn, tenant, subject)
            if stored is not None and stored.wrapped is not None:
                key = self._vault.unwrap(tenant, stored)
                self._vault.keep(tenant, subject, key)
                return key
        raise StoreUnavailable(f"store.data_key: the data key of a subject of {tenant} is erased as fast as it is made")

    def _newest(self, conn: Connection, tenant: str, subject: str) -> Wrapped | None:
        conn.execute(self._sql["set_tenant"], {"tenant": tenant})
        cursor = conn.cursor(row_factory=class_row(Wrapped))
        return cursor.execute(self._sql["newest_data_key"], {"tenant": tenant, "subject": subject}).fetchone()


def _tenant_of(entry: Entry) -> str:
    return entry.row.tenant


def _entry_json(entry: Entry, hashes: dict[tuple[UUID, str], str]) -> str:
    """The type ``entry`` of migration 0004."""
    row, hold, charge = entry.row, entry.hold, entry.charge
    exchange = encode(row).decode()
    for part in ("request", "reply"):
        digest = hashes.get((row.id, part))
        if digest is not None:
            exchange = f'{exchange[:-1]},"{part}_sha256":"\\\\x{digest}"}}'
    claims = claims_json(hold.claims) if hold is not None else "[]"
    tokens = charge.tokens if charge is not None else 0
    counts = "false" if row.outcome is Outcome.REFUSED else "true"
    return (
        f'{{"exchange":{exchange},"claims":{claims},"charged_nano":{row.charged_nano},'
        f'"tokens":{tokens},"counts":{counts}}}'
    )


def _ids(cursor: psycopg.Cursor[TupleRow]) -> frozenset[UUID]:
    found = cursor.fetchone()
    assert found is not None, "settle() returns an array"
    return frozenset(found[0])
