"""The store's money in memory: LeaseStore, Recorder and Sweeper of one worker, for tests; others join it with `of_worker`.

It keeps the promises of the real ones and passes the same contract suites (tests/contract/test_ledger.py, test_leases.py).
It is exact because nothing here waits between looking and writing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import Struct, structs

from shipworthy.kit.memory_leases import Lease, MemoryLeases
from shipworthy.kit.memory_levels import Blocked, Figures, Levels, standing
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.exchange import Bodies, Outcome, Row
from shipworthy.model.lease import Turn, Turned
from shipworthy.model.ledger import Claim, Estimate, Hold, Standing
from shipworthy.model.op import Op
from shipworthy.ports import SUSPENDED_S, Advance, Ask, Draft, Entry, Expired, Intent, Orphan, Stray

__all__ = ["Figures", "MemoryLedger"]

HOLDS_POLL_S = 0.005


class Held(Struct):
    """A hold as the ledger keeps it; with ``hold.lease_id`` an intent, whose money is the lease's."""

    hold: Hold
    arrived_unix_ns: int
    amount_nano: int
    second: int
    expires_at: datetime
    worker: str
    intent: bytes


class Ground:
    """What all workers share."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.rows: dict[UUID, Row] = {}
        self.bodies: dict[UUID, Bodies] = {}
        self.holds: dict[UUID, Held] = {}
        self.heard: set[str] = set()  # workers whose writer is connected
        self.levels = Levels(now)
        self.leases = MemoryLeases(self.levels, self._has_intents)

    def _has_intents(self, lease_id: UUID) -> bool:
        return any(held.hold.lease_id == lease_id for held in self.holds.values())


class MemoryLedger:
    """LeaseStore, Recorder and Sweeper in one: they share the counters. ``rows`` and ``bodies`` are what was recorded."""

    def __init__(
        self,
        worker: str = "worker",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        hold_s: float = 900.0,
        holds_wait_s: float = 0.2,
        settled: Callable[[Entry], None] = lambda _: None,
        ground: Ground | None = None,
    ) -> None:
        self.ground = ground or Ground(now)
        self.rows = self.ground.rows
        self.bodies = self.ground.bodies
        self.away = ""  # a reason: from now on the store is unavailable
        self.settled = settled
        self._worker = worker
        self._now = now
        self._hold_s = hold_s
        self._holds_wait_s = holds_wait_s
        self._levels = self.ground.levels
        self._leases = self.ground.leases
        self._holds = self.ground.holds

    def of_worker(self, worker: str, settled: Callable[[Entry], None] = lambda _: None) -> MemoryLedger:
        """The same store as another worker reaches it; it is ``away`` for each alone."""
        return MemoryLedger(worker, self._now, self._hold_s, self._holds_wait_s, settled, self.ground)

    def figures(self, tenant: str, claim: Claim) -> Figures:
        """What a level's counter says in the claim's period."""
        return self._levels.figures(tenant, claim)

    def leases(self, tenant: str) -> Sequence[Lease]:
        return self._leases.of(tenant)

    def hang_up(self) -> None:
        """The worker's writer is connected no more: nothing that it sent can still arrive."""
        self.ground.heard.discard(self._worker)

    # ---------------------------------------------------------------------------------------- Ledger

    async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        await self._find_room(tenant, claims, estimate)
        return self._hold(op, tenant, claims, estimate, draft)

    async def raise_to(self, op: Op, hold: Hold, amount_nano: int) -> Hold:
        self._require_store()
        if amount_nano <= hold.estimate.amount_nano:
            return hold
        held = self._holds.get(hold.id)
        if held is None:
            raise StoreUnavailable(f"store.hold_gone: the hold {hold.id} has expired and was settled")
        more_nano = max(0, amount_nano - held.amount_nano)  # the caller's noun may be older than the last raise
        if more_nano:
            await self._find_money(hold.tenant, hold.claims, more_nano)
            for counter, _ in self._levels.counters_of(hold.tenant, hold.claims):
                counter.held_nano += more_nano
            held.amount_nano += more_nano
        return structs.replace(hold, estimate=structs.replace(hold.estimate, amount_nano=amount_nano))

    async def announce(self, op: Op, hold: Hold) -> None:
        """A direct hold says it itself."""

    def trim(self, op: Op, hold: Hold, amount_nano: int) -> None:
        """A direct hold keeps what it has until it is settled."""

    def leave(self, hold: Hold) -> None:
        """Its place is given back with its settlement."""

    # ---------------------------------------------------------------------------------------- LeaseStore

    async def reserve_ahead(
        self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft, ask: Ask
    ) -> Advance:
        await self._find_room(tenant, claims, estimate)
        given = self._leases.give(self._worker, tenant, claims, estimate, ask, alone=not ask.direct)
        if given is None and not ask.direct:
            return Advance(None, Standing())
        if given is None:
            return Advance(None, self._hold(op, tenant, claims, estimate, draft).standing)
        return Advance(given, standing(self._levels.rolled(tenant, claims), self._now().timestamp()))

    async def refill(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, ask: Ask) -> Advance:
        self._require_store()
        blocked = self._levels.blocked(tenant, claims, estimate)
        if blocked is not None:
            raise self._refusal(tenant, blocked)
        given = self._leases.give(self._worker, tenant, claims, estimate, ask, alone=False)
        return Advance(given, standing(self._levels.rolled(tenant, claims), self._now().timestamp()))

    async def top_up(self, op: Op, tenant: str, lease_id: UUID, more_nano: int) -> None:
        self._require_store()
        await self._find_money(tenant, self._leases.topped_up(tenant, lease_id).claims, more_nano)
        self._leases.topped_up(tenant, lease_id)
        self._leases.top_up(tenant, lease_id, more_nano)

    async def turn(self, tenant: str, turns: Sequence[Turn], ttl_s: float) -> Sequence[Turned]:
        self._require_store()
        return [self._leases.turn(tenant, turn, ttl_s) for turn in sorted(turns, key=lambda turn: turn.id)]

    # ---------------------------------------------------------------------------------------- Recorder

    async def record(self, entry: Entry) -> None:
        self.enqueue(entry)

    def enqueue(self, entry: Entry) -> None:
        self._require_store()
        self.ground.heard.add(self._worker)
        if entry.hold is not None and isinstance(entry.hold.intent, Intent):
            entry.hold.intent.void = True
        self._settle(entry, presumed=False)
        self.settled(entry)

    async def intended(self, intent: Intent) -> None:
        self.intend(intent)

    def intend(self, intent: Intent) -> None:
        """What is said twice stands once, at its highest."""
        self._require_store()
        self.ground.heard.add(self._worker)
        hold, expires_at = intent.hold, self._now() + timedelta(seconds=intent.expires_s)
        known = self._holds.get(hold.id)
        if known is not None:
            if known.hold.lease_id == hold.lease_id:
                known.amount_nano = max(known.amount_nano, hold.estimate.amount_nano)
        elif not intent.void:
            kept = Hold(hold.id, hold.tenant, hold.estimate, hold.claims, hold.standing, hold.lease_id)
            self._holds[hold.id] = Held(
                kept, intent.arrived_unix_ns, hold.estimate.amount_nano, 0, expires_at, self._worker, intent.draft()
            )

    # ---------------------------------------------------------------------------------------- Sweeper

    async def strays(self, dead_workers: Sequence[str], limit: int) -> Sequence[Stray]:
        self._require_store()
        return [
            Stray(
                lease.tenant,
                lease.id,
                lease.worker,
                None if lease.suspended_at is None else (self._now() - lease.suspended_at).total_seconds(),
                lease.ended,
                not any(held.hold.lease_id == lease.id for held in self._holds.values()),
                lease.worker not in self.ground.heard,
            )
            for lease in self._leases.astray(dead_workers, limit)
        ]

    async def suspend(self, strays: Sequence[Stray]) -> int:
        self._require_store()
        return self._leases.suspend((stray.tenant, stray.id) for stray in strays)

    async def bury(self, strays: Sequence[Stray]) -> int:
        self._require_store()
        return self._leases.bury((stray.tenant, stray.id) for stray in strays)

    async def orphans(self, dead_workers: Sequence[str], limit: int) -> Sequence[Orphan]:
        self._require_store()
        found = [held for held in self._holds.values() if self._is_orphan(held, dead_workers)]
        return [
            Orphan(
                structs.replace(held.hold, estimate=Estimate(held.hold.estimate.tokens, 0, self._ceiling_nano(held))),
                held.arrived_unix_ns,
                held.worker,
                held.intent,
            )
            for held in sorted(found, key=lambda held: (held.hold.tenant, held.hold.id))[:limit]
        ]

    async def presume(self, op: Op, entries: Sequence[Entry]) -> Sequence[Row]:
        self._require_store()
        wanted = [entry for entry in entries if entry.row.id in self._holds]
        return [entry.row for entry in wanted if self._settle(entry, presumed=True)]

    async def expire(self, rows_before: datetime, bodies_before: datetime, limit: int) -> Expired:
        self._require_store()
        bodies = [key for key in self.bodies if arrived(self.rows[key]) < bodies_before][:limit]
        rows = [key for key, row in self.rows.items() if arrived(row) < rows_before][:limit]
        for key in bodies:
            del self.bodies[key]
        for key in rows:
            del self.rows[key]
            self.bodies.pop(key, None)
        return Expired(len(bodies), len(rows))

    async def prepare_partitions(self) -> Sequence[str]:
        return ()

    # ---------------------------------------------------------------------------------------- inside

    def _require_store(self) -> None:
        if self.away:
            raise StoreUnavailable(self.away)

    async def _find_room(self, tenant: str, claims: Sequence[Claim], estimate: Estimate) -> None:
        """Raises Refusal when there is none. While only holds and leases stand in the way: after a bounded time."""
        keys = [claim.key for claim in claims]
        assert keys == sorted(set(keys)), "claims are not in lock order"
        until = time.monotonic() + self._holds_wait_s
        while True:
            self._require_store()
            blocked = self._levels.blocked(tenant, claims, estimate)
            if blocked is None:
                return
            refusal = self._refusal(tenant, blocked)
            if not blocked.holds_only or time.monotonic() >= until:
                raise refusal
            await asyncio.sleep(HOLDS_POLL_S)

    async def _find_money(self, tenant: str, claims: Sequence[Claim], more_nano: int) -> None:
        """The same for more money alone, below the caps that the latest reservations saw."""
        until = time.monotonic() + self._holds_wait_s
        while True:
            self._require_store()
            known = [
                structs.replace(claim, cap_nano=self._levels.cap_nano(tenant, claim))
                for claim in claims
                if claim.cap_nano >= 0
            ]
            blocked = self._levels.blocked_by_budget(tenant, known, more_nano)
            if blocked is None:
                return
            if not blocked.holds_only or time.monotonic() >= until:
                raise blocked.refusal
            await asyncio.sleep(HOLDS_POLL_S)

    def _refusal(self, tenant: str, blocked: Blocked) -> Exception:
        if blocked.holds_only:
            self._leases.recall(tenant, blocked.key)
        return blocked.refusal

    def _hold(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        now = self._now()
        for counter, claim in self._levels.counters_of(tenant, claims):
            counter.held_nano += estimate.amount_nano
            counter.cap_nano = claim.cap_nano
        windows = self._levels.rolled(tenant, claims)
        for _, window in windows:
            window.count(self._levels.second, 1, estimate.tokens)
            window.in_flight += 1
        hold = Hold(op.id, tenant, estimate, tuple(claims), standing(windows, now.timestamp()))
        expires_at = now + timedelta(seconds=self._hold_s)
        self._holds[op.id] = Held(
            hold, op.arrived_unix_ns, estimate.amount_nano, self._levels.second, expires_at, self._worker, draft()
        )
        return hold

    def _is_orphan(self, held: Held, dead_workers: Sequence[str]) -> bool:
        """A leased exchange's only when its worker is silent: else it may still be recorded."""
        gone = held.worker in dead_workers or held.expires_at < self._now()
        if held.hold.lease_id is None:
            return gone
        lease = self._leases.get(held.hold.tenant, held.hold.lease_id)
        suspended_at = lease.suspended_at if lease is not None else None
        if suspended_at is not None:
            gone |= suspended_at < self._now() - timedelta(seconds=SUSPENDED_S)
        return gone and held.worker not in self.ground.heard

    def _ceiling_nano(self, held: Held) -> int:
        """The most that it can have cost: exchanges that were trimmed cost together no more than their lease has left."""
        if held.hold.lease_id is None:
            return held.amount_nano
        lease = self._leases.get(held.hold.tenant, held.hold.lease_id)
        budgeted = any(claim.cap_nano >= 0 for claim in held.hold.claims)
        if not budgeted:
            return held.amount_nano
        before = [
            other.amount_nano
            for other in self._holds.values()
            if other.hold.lease_id == held.hold.lease_id and other.hold.id < held.hold.id
        ]
        return min(held.amount_nano, max(0, (lease.nano if lease is not None else 0) - sum(before)))

    def _settle(self, entry: Entry, *, presumed: bool) -> bool:
        """Whether the row is new: then, and only then, its charge counts."""
        row = entry.row
        held = self._holds.pop(row.id, None)
        new = row.id not in self.rows
        if new:
            self.rows[row.id] = row
            if entry.bodies is not None:
                self.bodies[row.id] = entry.bodies
            for counter, _ in self._levels.counters_of(row.tenant, entry.hold.claims if entry.hold else ()):
                counter.charged_nano += row.charged_nano
            if entry.hold is not None and entry.hold.lease_id is not None:
                taken = min(row.charged_nano, entry.hold.estimate.amount_nano)
                self._leases.pay(row.tenant, entry.hold.lease_id, taken, presumed=presumed)
        if held is not None and held.hold.lease_id is None:
            for counter, _ in self._levels.counters_of(row.tenant, held.hold.claims):
                counter.held_nano -= held.amount_nano
            used = entry.charge.tokens if entry.charge else 0
            self._correct(held, used, row.outcome is not Outcome.REFUSED)
        return new

    def _correct(self, held: Held, used: int, counts: bool) -> None:
        """A direct hold leaves its windows: what it used beyond its estimate counts now, what it did not is given back."""
        estimated = held.hold.estimate.tokens
        for _, window in self._levels.rolled(held.hold.tenant, held.hold.claims):
            window.in_flight -= 1
            window.count(self._levels.second, 0, max(0, used - estimated))
            window.uncount(held.second, 0 if counts else 1, max(0, estimated - used))


def arrived(row: Row) -> datetime:
    return datetime.fromtimestamp(row.arrived_unix_ns / 1e9, UTC)
