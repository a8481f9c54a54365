"""PostgreSQL as the ground of the workers of `lease_world`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import psycopg
from tests.property.lease_world import Kept, Seen

from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import LedgerBounds, PostgresLedger
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.memory_levels import Figures
from shipworthy.ports import Entry, Intent

SILENT_S = 5.0

FIGURES = (
    """select key, cap_nano, charged_nano, held_nano, leased_nano, suspended_nano from counter where tenant = %s"""
)
PACES = """select key, in_flight, leased_requests, leased_tokens, leased_places from pace where tenant = %s"""
LEASES = """select id, nano, suspended_at is not null, presumed, levels from lease where tenant = %s"""
HOLDS = """select id, amount_nano, lease_id from hold where tenant = %s"""
ROWS = """select id, charged_nano, held_nano from exchange where tenant = %s"""


class StoreWriter:
    """A worker's writer, called in place of the recorder's thread."""

    def __init__(self, ground: PostgresGround, worker: str) -> None:
        self._ground = ground
        self._worker = worker
        self._writer = BatchWriter(ground.store.conninfo(StoreRole.RECORDER), ground.vault, ground.now, worker)

    def write(self, intents: Sequence[Intent], entries: Sequence[Entry]) -> None:
        if intents:
            self._writer.intend(intents)
        if entries:
            self._writer.write(entries)

    def hang_up(self) -> None:
        """Returns when PostgreSQL has noticed."""
        self._writer.disconnect()
        until = time.monotonic() + SILENT_S
        while not self._ground.ask("select is_silent(%s)", self._worker)[0][0]:
            assert time.monotonic() < until, "PostgreSQL keeps the lock of a connection that is closed"


class PostgresGround:
    waits = True

    def __init__(self, store: Store, superuser_url: str, now: Callable[[], datetime]) -> None:
        self.store = store
        self.now = now
        self.vault = Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))
        self.sweeper = StoreSweeper(store, self.vault, now)
        self._conn = psycopg.connect(superuser_url, autocommit=True)
        self._conn.execute("set search_path to shipworthy")

    def join(self, worker: str) -> tuple[PostgresLedger, StoreWriter]:
        ledger = PostgresLedger(self.store, worker, LedgerBounds(holds_wait_ms=0), self.now)
        return ledger, StoreWriter(self, worker)

    def ask(self, statement: str, asked: str) -> list[tuple]:
        return self._conn.execute(statement, (asked,)).fetchall()

    def see(self, tenant: str, keys: Sequence[str]) -> Seen:
        figures = {key: Figures(*money) for key, *money in self.ask(FIGURES, tenant)}
        paces = self.ask(PACES, tenant)
        holds = self.ask(HOLDS, tenant)
        return Seen(
            {key: figures.get(key, Figures()) for key in keys},
            {key: in_flight for key, in_flight, *_ in paces},
            {key: tuple(leased) for key, _, *leased in paces},
            {of: Kept(nano, *flags, tuple(levels)) for of, nano, *flags, levels in self.ask(LEASES, tenant)},
            {of: amount for of, amount, lease in holds if lease is None},
            {of for of, _, lease in holds if lease is not None},
            {of: (charged, held) for of, charged, held in self.ask(ROWS, tenant)},
        )

    def close(self) -> None:
        self._conn.close()
