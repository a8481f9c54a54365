"""Reads of the record, corrections beside it, and the books compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

from shipworthy.model.books import Balance, Presumed, Used
from shipworthy.model.correction import Applied, Correction
from shipworthy.model.exchange import Bodies, Row
from shipworthy.model.reading import CostAsked, CostLine, Page, Place, Wanted
from shipworthy.ports.acts import AdminAct


class Exchanges(Protocol):
    """Reads of the record. ``scope`` is one tenant, or EVERY_TENANT for operators; whoever calls has recorded the read."""

    async def page(self, scope: str, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """At most ``limit`` exchanges before the place ``after``, newest first: stable while others are recorded."""

    async def get(self, scope: str, exchange_id: UUID) -> Row | None: ...

    async def bodies(self, scope: str, exchange_id: UUID) -> Bodies | None:
        """What was said, decrypted; None when it was not kept, or no longer is."""

    async def cost(self, scope: str, asked: CostAsked) -> Sequence[CostLine]:
        """Sums over one snapshot of the record; their total equals the rows to the nano-dollar."""


CORRECTIONS_MAX = 10_000
"""So many corrections are read at once, the oldest."""


class Corrections(Protocol):
    """What was found out later of what exchanges cost. ``scope`` as for Exchanges."""

    async def of(self, scope: str, exchange_ids: Sequence[UUID]) -> Sequence[Correction]:
        """The corrections of these exchanges, oldest first; at most CORRECTIONS_MAX. Raises StoreUnavailable."""

    async def apply(self, correction: Correction, expected_nano: int | None, act: AdminAct) -> Applied:
        """The correction, the counters that it moves and ``act`` together, or none of them.

        ``expected_nano`` is what the caller believes that the exchange comes to before; None = whatever it does. What a
        verdict other than *applied* names has changed nothing. Raises StoreUnavailable.
        """


class Books(Protocol):
    """Reads that check the books, across tenants: each answer is of one moment. Whoever calls has recorded the read."""

    async def balance(self, tenant: str, since: datetime | None, rows_since: datetime, limit: int) -> Balance:
        """Every counter beside what is behind it, of one tenant ("" = all), in periods that end after ``since``.

        Rows that arrived before ``rows_since`` may be gone by retention. Raises StoreUnavailable.
        """

    async def used(self, provider: str, first: date, last: date) -> Sequence[Used]:
        """What was used of each upstream model of ``provider`` on each of these UTC days. Raises StoreUnavailable."""

    async def presumed(self, first: date, last: date) -> Sequence[Presumed]:
        """What is only presumed of those days: no provider is known of it. Raises StoreUnavailable."""
