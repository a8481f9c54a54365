"""The store's connections: one bounded pool a role, every wait bounded.

The login role may do nothing by itself. Each pool takes one of three roles for its whole life:

- ``app`` sees one tenant at a time: the one that ``tenant()`` names; without one it sees nothing
- ``recorder`` writes the record, also one tenant at a time, and reads none of it
- ``operator`` reads across tenants, by explicit policy; whoever uses it records that it did
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TypeVar

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from shipworthy.adapters.store.trouble import lost, passing, translated

SCHEMA = "shipworthy"
T = TypeVar("T")

SET_TENANT = "select set_config('app.tenant', %s, true)"

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]


class StoreRole(StrEnum):
    APP = "shipworthy_app"
    RECORDER = "shipworthy_recorder"
    OPERATOR = "shipworthy_operator"


class Bounds(Struct, frozen=True):
    """Every bound on the way to the store."""

    app_connections_max: int = 6
    ahead_connections_max: int = 2  # of the application, for what every request depends on
    recorder_connections_max: int = 2
    operator_connections_max: int = 2
    waiting_max: int = 2_000  # callers that may queue for a connection, a role
    wait_s: float = 2.0  # for a free connection
    connect_s: int = 3
    statement_ms: int = 5_000
    lock_ms: int = 2_000
    idle_in_transaction_ms: int = 30_000
    tries_max: int = 4  # of what is safe to say twice: dead connections, broken deadlocks

    def connections_max(self, role: StoreRole) -> int:
        match role:
            case StoreRole.APP:
                return self.app_connections_max
            case StoreRole.RECORDER:
                return self.recorder_connections_max
            case StoreRole.OPERATOR:
                return self.operator_connections_max


def conninfo(url: str, role: StoreRole, bounds: Bounds, application: str) -> str:
    """``url`` with the role and every bound as start-up options, so that a connection needs no set-up round trip."""
    given = str(conninfo_to_dict(url).get("options") or "")
    settings = {
        "role": role.value,
        "search_path": f"{SCHEMA},public",
        "statement_timeout": str(bounds.statement_ms),
        "lock_timeout": str(bounds.lock_ms),
        "idle_in_transaction_session_timeout": str(bounds.idle_in_transaction_ms),
        "timezone": "UTC",
    }
    options = " ".join([given, *(f"-c {name}={value}" for name, value in settings.items())]).strip()
    return make_conninfo(
        url,
        options=options,
        connect_timeout=bounds.connect_s,
        application_name=application,
        keepalives_idle=15,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )


def _pool(url: str, role: StoreRole, bounds: Bounds, application: str, connections_max: int) -> Pool:
    return AsyncConnectionPool(
        conninfo(url, role, bounds, application),
        # an auto-prepared plan was pinned across a change of app.tenant: no prepared statements
        kwargs={"autocommit": True, "prepare_threshold": None},
        min_size=1 if role is StoreRole.APP else 0,
        max_size=connections_max,
        max_waiting=bounds.waiting_max,
        timeout=bounds.wait_s,
        max_idle=120.0,
        reconnect_timeout=2.0,
        name=role.value,
        open=False,
        num_workers=2,
    )


class Store:
    """The way to PostgreSQL, per tenant. Opening it waits for nothing: the first use does, within its bound."""

    def __init__(self, url: str, bounds: Bounds | None = None, *, application: str = "shipworthy") -> None:
        self.url = url
        self.bounds = bounds or Bounds()
        self.application = application
        self._pools: Mapping[StoreRole, Pool] = {
            role: _pool(url, role, self.bounds, application, self.bounds.connections_max(role)) for role in StoreRole
        }
        self._ahead = _pool(url, StoreRole.APP, self.bounds, application, self.bounds.ahead_connections_max)

    async def open(self) -> None:
        for pool in (*self._pools.values(), self._ahead):
            await pool.open(wait=False)

    async def close(self) -> None:
        await asyncio.gather(*(pool.close(timeout=2.0) for pool in (*self._pools.values(), self._ahead)))

    async def __aenter__(self) -> Store:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def conninfo(self, role: StoreRole) -> str:
        """For the few who need a connection of their own: the recorder's writer, LISTEN."""
        return conninfo(self.url, role, self.bounds, self.application)

    @asynccontextmanager
    async def connection(self, role: StoreRole) -> AsyncGenerator[Connection, None]:
        """A connection in autocommit, for single statements. Raises StoreUnavailable, also for what runs inside."""
        with translated():
            async with self._pools[role].connection() as conn:
                yield conn

    @asynccontextmanager
    async def ahead(self) -> AsyncGenerator[Connection, None]:
        """As ``connection`` for the application, past the queue of the requests: see ``ask_ahead``."""
        with translated():
            async with self._ahead.connection() as conn:
                yield conn

    async def ask(self, role: StoreRole, question: Callable[[Connection, bool], Awaitable[T]]) -> T:
        """Runs ``question``, which is one statement that may safely be said twice; its second argument is whether it may
        have been said before. A dead connection or a broken deadlock is not the caller's trouble. Raises StoreUnavailable.
        """
        return await self._ask(self._pools[role], question)

    async def ask_ahead(self, question: Callable[[Connection, bool], Awaitable[T]]) -> T:
        """The same for the application, past the queue of the requests. For what each of them depends on, and a worker asks
        by itself: keys, pauses, whether the store answers (and the turns of leases). In that queue the busiest worker would
        fail closed.
        """
        return await self._ask(self._ahead, question)

    async def _ask(self, pool: Pool, question: Callable[[Connection, bool], Awaitable[T]]) -> T:
        with translated():
            for attempt in range(1, self.bounds.tries_max + 1):
                try:
                    async with pool.connection() as conn:
                        return await question(conn, attempt > 1)
                except (psycopg.Error, OSError) as error:
                    if attempt == self.bounds.tries_max or not passing(error):
                        raise
                    if lost(error):  # its neighbours probably are dead too: they are replaced
                        await pool.check()
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def discard_dead(self, role: StoreRole) -> None:
        """After a connection turned out dead its neighbours probably are too: lets the pools replace them."""
        await self._pools[role].check()
        if role is StoreRole.APP:
            await self._ahead.check()

    @asynccontextmanager
    async def tenant(self, tenant: str) -> AsyncGenerator[Connection, None]:
        """A transaction of the application on behalf of one tenant; no row of any other is visible or can be written."""
        async with self._transaction(StoreRole.APP, tenant) as conn:
            yield conn

    @asynccontextmanager
    async def recording(self, tenant: str) -> AsyncGenerator[Connection, None]:
        """A transaction that adds to one tenant's record."""
        async with self._transaction(StoreRole.RECORDER, tenant) as conn:
            yield conn

    @asynccontextmanager
    async def operator(self) -> AsyncGenerator[Connection, None]:
        """A transaction that may read across tenants. The caller records the act."""
        async with self._transaction(StoreRole.OPERATOR, "") as conn:
            yield conn

    @asynccontextmanager
    async def _transaction(self, role: StoreRole, tenant: str) -> AsyncGenerator[Connection, None]:
        if not tenant and role is not StoreRole.OPERATOR:
            raise ValueError("the store is reached for one tenant; none was named")
        with translated():
            async with contextlib.AsyncExitStack() as stack:
                conn = await self._begin(stack, role, tenant)
                yield conn

    async def _begin(self, stack: contextlib.AsyncExitStack, role: StoreRole, tenant: str) -> Connection:
        """A transaction on a live connection: one that proves dead at its first statement is replaced, a bounded number
        of times. Nothing of the caller's has run yet, so that nothing is done twice."""
        for attempt in range(1, self.bounds.tries_max + 1):
            try:
                async with contextlib.AsyncExitStack() as attempted:
                    conn = await attempted.enter_async_context(self._pools[role].connection())
                    await attempted.enter_async_context(conn.transaction())
                    await conn.execute(SET_TENANT, (tenant,))
                    stack.push_async_exit(attempted.pop_all())
                    return conn
            except (psycopg.Error, OSError) as error:
                if attempt == self.bounds.tries_max or not lost(error):
                    raise
                await self.discard_dead(role)
        raise AssertionError("unreachable: the last attempt returns or raises")
