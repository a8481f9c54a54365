"""Money and limits before anything is paid for: ledgers, leases, what providers allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from shipworthy.model.lease import Share, Turn, Turned
from shipworthy.model.ledger import Claim, Estimate, Hold, Standing
from shipworthy.model.op import Op
from shipworthy.model.route import Provider

Draft = Callable[[], bytes]
"""What the sweeper needs to write the row if this worker dies: msgpack of a Row with what is known. Called when needed."""


class Ledger(Protocol):
    async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        """All levels or none, exact at any concurrency on any number of workers.

        Raises Refusal reserve.*, StoreUnavailable.
        """

    async def raise_to(self, op: Op, hold: Hold, amount_nano: int) -> Hold:
        """A hold of at least ``amount_nano``, or Refusal reserve.budget_exhausted and the old hold stays."""

    async def announce(self, op: Op, hold: Hold) -> None:
        """Before anything is sent for ``hold``: the store knows, or will in moments, what it may cost if this worker dies.

        Raises StoreUnavailable.
        """

    def trim(self, op: Op, hold: Hold, amount_nano: int) -> None:
        """Gives back what ``hold`` has beyond ``amount_nano``. Never raises.

        At once for a leased hold; a direct one keeps it until it is settled: giving it back would cost a round trip.
        """

    def leave(self, hold: Hold) -> None:
        """The exchange of ``hold`` has ended, recorded or not: it takes no place any more. Never raises."""


class Quotas(Protocol):
    """What a provider allows the key that we call it with, exact across workers and servers."""

    async def take(self, op: Op, provider: Provider, tokens: int) -> Hold | None:
        """One request of so many tokens, at most; None = the provider has no limits.

        Raises ProviderFailure *capacity* before the provider would say 429; Refusal when the store is away.
        """

    def used(self, taken: Hold, tokens: int, *, sent: bool) -> None:
        """What the attempt really used; one that was not sent does not count."""


class Ask(Struct, frozen=True):
    """A lease that is wanted beside a reservation, or more for one; shared with so many workers at least."""

    lease_id: UUID
    wish: Share
    workers: int
    ttl_s: float
    direct: bool = True  # where there is room for no lease: reserve directly; else a lease for this one request alone


class Advance(Struct, frozen=True):
    """A reservation's answer: what the lease was given, from which the request is to be drawn; None = it is held directly.

    The share may be less than the wish, in each respect; it covers the request, and one more like it unless not ``direct``.
    """

    given: Share | None
    standing: Standing
    certain: bool = True  # False: the answer to a first try was lost, which may have given a lease too


class LeaseStore(Ledger, Protocol):
    """A Ledger that also gives leases. Raises as it does."""

    async def reserve_ahead(
        self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft, ask: Ask
    ) -> Advance:
        """``reserve``, and a lease where there is room for one. Raises Refusal reserve.*, StoreUnavailable."""

    async def refill(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, ask: Ask) -> Advance:
        """More for a lease, ahead of need; given None = there is no room. Raises Refusal, StoreUnavailable."""

    async def top_up(self, op: Op, tenant: str, lease_id: UUID, more_nano: int) -> None:
        """More money for one hold of a lease. Raises Refusal reserve.budget_exhausted, StoreUnavailable."""

    async def turn(self, tenant: str, turns: Sequence[Turn], ttl_s: float) -> Sequence[Turned]:
        """Reports and renews leases, one transaction. Raises StoreUnavailable."""
