"""What PostgreSQL's errors mean here: the store is away or cannot, or it is our own mistake.

One table, most specific first. Only the first sort becomes ``StoreUnavailable``; anything else is a defect and passes
through under its own name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from shipworthy.model.errors import StoreUnavailable

# SQLSTATE or its class → what an operator reads. Longer entries win.
MEANINGS: dict[str, str] = {
    "53100": "store.disk_full: the store's disk is full",
    "53200": "store.out_of_memory: the store is out of memory",
    "53300": "store.connections: the store accepts no more connections",
    "53": "store.resources: the store lacks resources",
    "55P03": "store.lock_timeout: a lock was not granted in time",
    "57014": "store.statement_timeout: a statement ran past its bound",
    "57P": "store.stopping: the store is starting or stopping",
    "58": "store.io: the store's disk or system failed",
    "08": "store.connection: the connection to the store failed",
    "25006": "store.read_only: the store takes no writes (a standby?)",
    "40P01": "store.deadlock: two transactions waited for each other",
    "40001": "store.serialization: a concurrent transaction won",
}
CONTENDED = frozenset({"40P01", "40001"})


def meaning(error: BaseException) -> str:
    """Why the store cannot serve now, in an operator's words; "" when ``error`` says nothing of the kind."""
    match error:
        case PoolTimeout():
            return "store.pool_wait: no connection to the store became free in time"
        case TooManyRequests():
            return "store.pool_queue: too many requests wait for a connection to the store"
        case PoolClosed():
            return "store.closed: the store's connections are closed"
        case psycopg.errors.CheckViolation() if _misrouted(error):
            return "store.month: a month got a table of its own in this very moment"
        case psycopg.Error(sqlstate=str(state)):
            return MEANINGS.get(state) or MEANINGS.get(state[:3]) or MEANINGS.get(state[:2]) or ""
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return "store.connection: the connection to the store failed"  # libpq's own errors carry no SQLSTATE
        case OSError():
            return "store.connection: the store cannot be reached"
        case _:
            return ""


def lost(error: BaseException) -> bool:
    """Whether the connection itself is gone, so that another one may do better."""
    return meaning(error).startswith(("store.connection:", "store.stopping:"))


def passing(error: BaseException) -> bool:
    """Whether the same thing, said again, may well succeed at once."""
    return lost(error) or getattr(error, "sqlstate", None) in CONTENDED or meaning(error).startswith("store.month:")


def _misrouted(error: psycopg.errors.CheckViolation) -> bool:
    """A row was on its way into a default partition when its month got a table of its own."""
    table, bounds = error.diag.table_name or "", error.diag.constraint_name is None  # a partition's bounds have no name
    return bounds and table.endswith("_default")


def unavailable(error: BaseException) -> StoreUnavailable | None:
    """``error`` as the promise of every store port puts it, or None when it is a defect of ours."""
    said = meaning(error)
    return StoreUnavailable(f"{said} ({first_line(error)})") if said else None


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


@contextmanager
def translated() -> Iterator[None]:
    """Everything that means "the store is away or cannot" leaves as StoreUnavailable."""
    try:
        yield
    except (psycopg.Error, PoolTimeout, TooManyRequests, PoolClosed, OSError) as error:
        said = unavailable(error)
        if said is None:
            raise
        raise said from error
