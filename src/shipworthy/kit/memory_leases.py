"""Leases in memory, for tests: what the store sets aside for workers, with the semantics of migration 0023."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from shipworthy.kit.memory_levels import Levels, standing
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.lease import Share, Turn, Turned
from shipworthy.model.ledger import Claim, Estimate, Standing
from shipworthy.ports import Ask

LeaseKey = tuple[str, UUID]


class Lease(Struct):
    """A lease as the store keeps it: ``nano`` is not charged yet, the rest is not reported as used yet."""

    tenant: str
    id: UUID
    worker: str
    claims: tuple[Claim, ...]
    expires_at: datetime
    nano: int = 0
    requests: int = 0
    tokens: int = 0
    places: int = 0
    recalled: bool = False
    ended: bool = False
    presumed: bool = False
    suspended_at: datetime | None = None


class MemoryLeases:
    """Every lease, over the levels. ``has_intents`` says whether exchanges of one are left to be recorded."""

    def __init__(self, levels: Levels, has_intents: Callable[[UUID], bool]) -> None:
        self.wanted_back: list[Callable[[str], None]] = []  # told the tenant whose leases stand in somebody's way
        self._levels = levels
        self._has_intents = has_intents
        self._leases: dict[LeaseKey, Lease] = {}

    def of(self, tenant: str) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease.tenant == tenant]

    def get(self, tenant: str, lease_id: UUID | None) -> Lease | None:
        return None if lease_id is None else self._leases.get((tenant, lease_id))

    def workers(self) -> set[str]:
        return {lease.worker for lease in self._leases.values()}

    # ---------------------------------------------------------------------------------------- given

    def recall(self, tenant: str, key: str) -> None:
        """Asks the workers that hold leases at a level to give back what they do not need."""
        found = [
            lease
            for lease in self.of(tenant)
            if not (lease.recalled or lease.ended or lease.suspended_at)
            and key in [claim.key for claim in lease.claims]
        ]
        for lease in found:
            lease.recalled = True
        if found:
            for told in self.wanted_back:
                told(tenant)

    def give(
        self, worker: str, tenant: str, claims: Sequence[Claim], estimate: Estimate, ask: Ask, *, alone: bool
    ) -> Share | None:
        """As much of the wish as there is room for; ``alone``: a lease for this one request if need be."""
        lease = self._leases.get((tenant, ask.lease_id))
        if lease is not None and (lease.suspended_at is not None or lease.ended or lease.presumed):
            return None
        workers = max(ask.workers, len({lease.worker for lease in self.of(tenant)}), 1)
        given = self._share(tenant, claims, ask.wish, 2 * workers)
        if not _covers(given, ask.wish, estimate, 2):
            if not alone:
                return None
            given = _needed(ask.wish, estimate, 1)
        expires_at = self._levels.now() + timedelta(seconds=ask.ttl_s)
        if lease is None:
            lease = self._leases[tenant, ask.lease_id] = Lease(tenant, ask.lease_id, worker, tuple(claims), expires_at)
        for counter, claim in self._levels.counters_of(tenant, claims):
            counter.leased_nano += given.nano
            counter.cap_nano = claim.cap_nano
        for _, window in self._levels.rolled(tenant, claims):
            window.leased_requests += given.requests
            window.leased_tokens += given.tokens
            window.leased_places += given.places
        lease.nano += given.nano
        lease.requests += given.requests
        lease.tokens += given.tokens
        lease.places += given.places
        lease.expires_at = expires_at
        return given

    def _share(self, tenant: str, claims: Sequence[Claim], wish: Share, parts: int) -> Share:
        """At every level at most its part of half of what is free."""
        nano, requests, tokens, places = wish.nano, wish.requests, wish.tokens, wish.places
        for counter, claim in self._levels.counters_of(tenant, claims):
            if nano > 0:
                nano = min(nano, (claim.cap_nano - counter.taken_nano) // parts)
        for claim, window in self._levels.rolled(tenant, claims):
            if claim.requests_per_min:
                left = claim.requests_per_min - window.requests_sum - window.leased_requests
                requests = min(requests, left // parts)
            if claim.tokens_per_min:
                left = claim.tokens_per_min - window.tokens_sum - window.leased_tokens
                tokens = min(tokens, left // parts)
            if claim.concurrent:
                places = min(places, (claim.concurrent - window.in_flight - window.leased_places) // parts)
        return Share(nano, requests, tokens, places)

    def top_up(self, tenant: str, lease_id: UUID, more_nano: int) -> None:
        """The room was looked for."""
        lease = self._leases[tenant, lease_id]
        for counter, _ in self._levels.counters_of(tenant, lease.claims):
            counter.leased_nano += more_nano
        lease.nano += more_nano

    def topped_up(self, tenant: str, lease_id: UUID) -> Lease:
        """The lease that may get more. Raises StoreUnavailable."""
        lease = self._leases.get((tenant, lease_id))
        if lease is None or lease.suspended_at is not None or lease.ended or lease.presumed:
            raise StoreUnavailable(f"store.lease_gone: the lease {lease_id} was taken for a dead worker's")
        return lease

    # ---------------------------------------------------------------------------------------- turned

    def turn(self, tenant: str, turn: Turn, ttl_s: float) -> Turned:
        lease = self._leases.get((tenant, turn.id))
        if lease is None or lease.presumed:
            return Turned(turn.id, True, 0, Standing())
        now = self._levels.now()
        back_nano = min(turn.back_nano, lease.nano)
        for counter, _ in self._levels.counters_of(tenant, lease.claims):
            if lease.suspended_at is not None:
                counter.suspended_nano -= lease.nano
                counter.leased_nano += lease.nano
            counter.leased_nano -= back_nano
        lease.nano -= back_nano
        self._count(lease, turn)
        lease.recalled, lease.suspended_at, lease.ended = False, None, turn.ended
        lease.expires_at = now + timedelta(seconds=ttl_s)
        if lease.ended and not lease.nano:
            del self._leases[tenant, turn.id]
        windows = self._levels.rolled(tenant, lease.claims)
        return Turned(turn.id, False, self._levels.second, standing(windows, now.timestamp()))

    def _count(self, lease: Lease, turn: Turn) -> None:
        """What was used counts in the window, from now on; what an ended lease still has counts as used."""
        used_requests, used_tokens = turn.used_requests, turn.used_tokens
        requests = min(lease.requests, used_requests + turn.back_requests)
        tokens = min(lease.tokens, used_tokens + turn.back_tokens)
        places = min(lease.places, turn.back_places)
        if turn.ended:
            used_requests = max(used_requests, lease.requests - turn.back_requests)
            used_tokens = max(used_tokens, lease.tokens - turn.back_tokens)
            requests, tokens, places = lease.requests, lease.tokens, lease.places
        lease.requests -= requests
        lease.tokens -= tokens
        lease.places -= places
        for _, window in self._levels.rolled(lease.tenant, lease.claims):
            window.leased_requests -= requests
            window.leased_tokens -= tokens
            window.leased_places -= places
            window.count(self._levels.second, used_requests, used_tokens)
            for over in turn.over:
                window.uncount(*over)

    # ---------------------------------------------------------------------------------------- settled, and the dead

    def pay(self, tenant: str, lease_id: UUID | None, nano: int, *, presumed: bool) -> None:
        """A row was recorded: its lease pays with what it has."""
        lease = self.get(tenant, lease_id)
        if lease is None:
            return
        taken = min(nano, lease.nano)
        lease.nano -= taken
        lease.presumed |= presumed
        for counter, _ in self._levels.counters_of(tenant, lease.claims):
            if lease.suspended_at is None:
                counter.leased_nano -= taken
            else:
                counter.suspended_nano -= taken
        if lease.ended and not lease.nano:
            del self._leases[tenant, lease.id]

    def astray(self, dead_workers: Sequence[str], limit: int) -> list[Lease]:
        """Past their expiry, suspended, or of a worker that is dead."""
        now = self._levels.now()
        found = [
            lease
            for lease in self._leases.values()
            if lease.expires_at < now or lease.worker in dead_workers or lease.suspended_at is not None
        ]
        return sorted(found, key=lambda lease: (lease.tenant, lease.id))[:limit]

    def suspend(self, keys: Iterable[LeaseKey]) -> int:
        found = [lease for key in keys if (lease := self._leases.get(key)) and lease.suspended_at is None]
        for lease in found:
            lease.suspended_at = self._levels.now()
            for counter, _ in self._levels.counters_of(lease.tenant, lease.claims):
                counter.leased_nano -= lease.nano
                counter.suspended_nano += lease.nano
        return len(found)

    def bury(self, keys: Iterable[LeaseKey]) -> int:
        """Those that are suspended and whose exchanges are all recorded; what they held of a window counts as used now."""
        found = [lease for key in keys if (lease := self._leases.get(key)) and lease.suspended_at is not None]
        found = [lease for lease in found if not self._has_intents(lease.id)]
        for lease in found:
            for counter, _ in self._levels.counters_of(lease.tenant, lease.claims):
                counter.suspended_nano -= lease.nano
            for _, window in self._levels.rolled(lease.tenant, lease.claims):
                window.leased_requests -= lease.requests
                window.leased_tokens -= lease.tokens
                window.leased_places -= lease.places
                window.count(self._levels.second, lease.requests, lease.tokens)
            del self._leases[lease.tenant, lease.id]
        return len(found)


def _covers(given: Share, wish: Share, estimate: Estimate, requests: int) -> bool:
    need = _needed(wish, estimate, requests)
    return (
        given.nano >= need.nano
        and given.requests >= need.requests
        and given.tokens >= need.tokens
        and given.places >= need.places
    )


def _needed(wish: Share, estimate: Estimate, requests: int) -> Share:
    """What so many requests need of what is wished for."""
    return Share(
        min(wish.nano, requests * estimate.amount_nano),
        min(wish.requests, requests),
        min(wish.tokens, requests * estimate.tokens),
        min(wish.places, requests),
    )
