"""One batch of ended exchanges on its way into the store: sealed, encoded, committed in one transaction.

Everything here blocks, and belongs in a thread: the recorder's or the sweeper's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from uuid import UUID

import psycopg
from msgspec import structs
from psycopg.rows import TupleRow, class_row
from psycopg.sql import SQL

from shipworthy.adapters.store.arrays import take_ready
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.intents import intention
from shipworthy.adapters.store.rows import clean_text
from shipworthy.adapters.store.settlement import Part, settlement
from shipworthy.adapters.store.vault import DataKey, Vault, Wrapped, nonces, seal
from shipworthy.model.errors import StoreUnavailable
from shipworthy.ports import Entry, Intent

KEY_TRIES_MAX = 3
SIDES = 2
"""Of an exchange: what was asked, and what was answered."""

Connection = psycopg.Connection[TupleRow]
Cursor = psycopg.Cursor[TupleRow]


class BatchWriter:
    """Writes batches over one connection of its own, which is replaced when it turns out dead.

    With ``worker`` the connection holds that worker's lock: while it lives, what the worker sent may still arrive.
    """

    def __init__(
        self, conninfo: str, vault: Vault, now: Callable[[], datetime] | None = None, worker: str = ""
    ) -> None:
        self._conninfo = conninfo
        self._vault = vault
        self._now = now
        self._worker = worker
        self._sql = blocks("recorder")
        self._conn: Connection | None = None
        self._ready = False  # whether the connection is set up, and holds the worker's lock

    def write(self, entries: Sequence[Entry], *, presume: bool = False) -> frozenset[UUID]:
        """Commits all of ``entries`` or raises and commits none; returns the ids of the rows that are new.

        With ``presume`` an entry stands only where its hold still does. Raises psycopg's errors.
        """
        with self._connected() as conn:
            grouped = [list(group) for _, group in groupby(sorted(entries, key=_order), key=_tenant)]
            questions = [self._settlement(conn, group, presume) for group in grouped]
            answers = self._ask(conn, self._sql["settle"], questions)
            return frozenset().union(*map(_new, answers, grouped))

    def intend(self, intents: Sequence[Intent]) -> None:
        """Commits all of ``intents`` or raises and commits none; what is said twice stands once. Raises psycopg's errors."""
        now = self._now() if self._now else None
        with self._connected() as conn:
            grouped = groupby(sorted(intents, key=_intent_order), key=_intent_tenant)
            questions = [intention(tenant, list(group), self._worker, now) for tenant, group in grouped]
            self._ask(conn, blocks("intents")["intend"], questions)

    @staticmethod
    def _ask(conn: Connection, statement: SQL, questions: Sequence[Mapping[str, object]]) -> Sequence[Cursor]:
        """One question a tenant: together one transaction, and one round trip."""
        if len(questions) == 1:
            return [conn.execute(statement, questions[0])]
        with conn.pipeline(), conn.transaction():
            return [conn.execute(statement, question) for question in questions]

    def disconnect(self) -> None:
        self._ready = False
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    @contextmanager
    def _connected(self) -> Generator[Connection]:
        """The connection, made if there is none; let go when it proves dead."""
        conn = self._conn
        if conn is None or conn.closed:
            self._conn = conn = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
            self._ready = False
            take_ready(conn)
        try:
            if not self._ready:
                conn.execute(self._sql["steady_plans"])
                if self._worker:
                    conn.execute(self._sql["be_heard"], {"worker": self._worker})
                self._ready = True
            yield conn
        except psycopg.Error:
            if conn.broken or conn.closed:
                self.disconnect()
            raise

    def _settlement(self, conn: Connection, entries: Sequence[Entry], presume: bool) -> dict[str, object]:
        fresh = nonces(SIDES * len(entries))
        parts = [part for place, entry in enumerate(entries, 1) for part in self._seal(conn, place, entry, fresh)]
        return settlement(entries[0].row.tenant, entries, parts, presume, self._now() if self._now else None)

    def _seal(self, conn: Connection, place: int, entry: Entry, fresh: Iterator[bytes]) -> Sequence[Part]:
        if entry.bodies is None:
            return ()
        row, bodies = entry.row, entry.bodies
        key = self._data_key(conn, row.tenant, clean_text(row.subject))
        sides = (("request", bodies.request), ("reply", bodies.reply))
        return [
            Part(place, part, seal(key, row.tenant, row.id, part, clear, fresh), bodies.truncated)
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


def _order(entry: Entry) -> tuple[str, int]:
    """Tenants by name, and in each the order of locks."""
    return entry.row.tenant, entry.row.id.int


def _tenant(entry: Entry) -> str:
    return entry.row.tenant


def _intent_order(intent: Intent) -> tuple[str, int]:
    return intent.hold.tenant, intent.hold.id.int


def _intent_tenant(intent: Intent) -> str:
    return intent.hold.tenant


def _new(cursor: Cursor, entries: Sequence[Entry]) -> frozenset[UUID]:
    found = cursor.fetchone()
    assert found is not None, "settle_rows() returns an array or null"
    return frozenset(entry.row.id for entry in entries) if found[0] is None else frozenset(found[0])
