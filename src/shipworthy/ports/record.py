"""What is written when an exchange ends, or cannot: entries, intents, and the sweep of what the dead left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from shipworthy.model.exchange import Bodies, Outcome, Row
from shipworthy.model.ledger import Charge, Hold
from shipworthy.model.op import Op
from shipworthy.ports.money import Draft


class Entry:
    """An ended exchange with all that must commit together: its row, its bodies, and its settlement (None = no hold).

    Nothing of it changes. What is said ``later`` is made when it is first asked for: by who writes it, behind the answer.
    """

    __slots__ = ("_kept", "_make", "body_bytes", "charge", "hold", "id", "outcome")

    def __init__(self, row: Row, bodies: Bodies | None, hold: Hold | None, charge: Charge | None) -> None:
        self.id = row.id
        self.outcome = row.outcome
        self.body_bytes = len(bodies.request) + len(bodies.reply) if bodies is not None else 0
        self.hold = hold
        self.charge = charge
        self._kept: tuple[Row, Bodies | None] = row, bodies
        self._make: Callable[[], tuple[Row, Bodies | None]] | None = None

    @classmethod
    def later(
        cls, id: UUID, outcome: Outcome, body_bytes: int, hold: Hold | None, charge: Charge | None,
        make: Callable[[], tuple[Row, Bodies | None]],
    ) -> Entry:  # fmt: skip
        """One that ``make`` makes, in whichever thread; ``body_bytes`` are what its bodies take, about."""
        entry = cls.__new__(cls)
        entry.id, entry.outcome, entry.body_bytes = id, outcome, body_bytes
        entry.hold, entry.charge = hold, charge
        entry._make = make
        return entry

    @property
    def row(self) -> Row:
        """Made now, if it was not."""
        return self.made()[0]

    @property
    def bodies(self) -> Bodies | None:
        """The same."""
        return self.made()[1]

    def made(self) -> tuple[Row, Bodies | None]:
        """Row and bodies; what they were made of is let go. Two threads at once make the same twice."""
        make = self._make
        if make is not None:
            self._kept = make()
            self._make = None
        return self._kept


REVOKED = "revoked"
"""Stands in a hold for an intent that is void."""


class Intent:
    """That an exchange is about to cost money which no hold in the store names: what is left of it if this worker dies.

    ``queued``: it is on its way into the store. ``void``: its exchange is recorded, so that it need not be written any more.
    """

    __slots__ = ("arrived_unix_ns", "draft", "expires_s", "hold", "queued", "void")

    def __init__(self, hold: Hold, arrived_unix_ns: int, expires_s: float, draft: Draft) -> None:
        self.hold = hold
        self.arrived_unix_ns = arrived_unix_ns
        self.expires_s = expires_s
        self.draft = draft
        self.queued = False
        self.void = False

    def revoke(self) -> None:
        """It need not be written any more. What its draft was made of is let go, and its hold lets go of it: as long as each
        held the other, both would wait for the collector, at thousands a second."""
        self.void = True
        self.draft = bytes
        if self.hold.intent is self:
            self.hold.intent = REVOKED


class Recorder(Protocol):
    """``settled``, which whoever builds it hands in, hears of each entry once: when it is committed, or queued where nobody
    waits for that."""

    async def record(self, entry: Entry) -> None:
        """Returns when row, bodies and counters are committed together. Raises StoreUnavailable."""

    def enqueue(self, entry: Entry) -> None:
        """The same, behind: grouped commits, at most 50 ms late. Raises StoreUnavailable when the bounded queue is full."""

    async def intended(self, intent: Intent) -> None:
        """Returns when ``intent`` is committed, with what else has gathered. Raises StoreUnavailable."""

    def intend(self, intent: Intent) -> None:
        """The same, behind; an intent whose exchange ends before is never written. Raises StoreUnavailable as `enqueue`."""


class Orphan(Struct, frozen=True):
    """A hold that nobody will settle: its worker is gone, or it has expired. ``intent`` is what reserve was given."""

    hold: Hold
    arrived_unix_ns: int  # the exchange's
    worker: str
    intent: bytes


class Expired(Struct, frozen=True):
    """What retention removed. ``months`` are partitions that went as a whole."""

    bodies: int = 0
    exchanges: int = 0
    acts: int = 0
    months: tuple[str, ...] = ()


SUSPENDED_S = 60.0
"""So long a lease is suspended before its worker, of whose death nobody has told, is believed dead."""


class Stray(Struct, frozen=True):
    """A lease past its expiry, or of a worker that is dead."""

    tenant: str
    id: UUID
    worker: str
    suspended_s: float | None  # since when; None = not yet
    ended: bool  # its worker spends it no more
    settled: bool  # none of its exchanges is left to be recorded
    silent: bool  # nothing that its worker sent can still arrive


class Sweeper(Protocol):
    """What the sweeper needs of the store. Any number of sweepers may run at once."""

    async def strays(self, dead_workers: Sequence[str], limit: int) -> Sequence[Stray]:
        """At most ``limit``. Raises StoreUnavailable."""

    async def suspend(self, strays: Sequence[Stray]) -> int:
        """Until it is known what became of it, their money can be spent by nobody. Raises StoreUnavailable."""

    async def bury(self, strays: Sequence[Stray]) -> int:
        """Frees what is left of suspended leases whose exchanges are all recorded. Raises StoreUnavailable."""

    async def orphans(self, dead_workers: Sequence[str], limit: int) -> Sequence[Orphan]:
        """At most ``limit`` holds of ``dead_workers`` or past their expiry. Raises StoreUnavailable."""

    async def presume(self, op: Op, entries: Sequence[Entry]) -> Sequence[Row]:
        """Records and settles each entry whose hold still stands; returns their rows. Raises StoreUnavailable."""

    async def expire(self, rows_before: datetime, bodies_before: datetime, limit: int) -> Expired:
        """Removes what is older: whole months, and at most ``limit`` rows of each kind. Raises StoreUnavailable."""

    async def prepare_partitions(self) -> Sequence[str]:
        """Makes the record's tables for the months to come; says in words what was made, and what could not be."""
