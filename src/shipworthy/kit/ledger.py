"""The store's money in memory: Ledger, Recorder and Sweeper of one process, for tests.

It keeps the promises of the real ones and passes the same contract suite (tests/contract/test_ledger.py). It is exact
because nothing here waits between looking and writing.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import Struct, structs

from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Bodies, Outcome, Row
from shipworthy.model.ledger import Claim, Estimate, Hold, Standing
from shipworthy.model.op import Op
from shipworthy.ports import Draft, Entry, Expired, Orphan

WINDOW_S = 61  # the second that is running, and the sixty before it
HOLDS_POLL_S = 0.005


class Figures(Struct):
    """One level's money in one period. ``charged + held + leased + suspended + free = cap``."""

    cap_nano: int = 0
    charged_nano: int = 0
    held_nano: int = 0
    leased_nano: int = 0
    suspended_nano: int = 0

    @property
    def taken_nano(self) -> int:
        return self.charged_nano + self.held_nano + self.leased_nano + self.suspended_nano


class Window:
    """A sliding minute in slots of a second, and what is in flight."""

    def __init__(self) -> None:
        self.requests: dict[int, int] = defaultdict(int)
        self.tokens: dict[int, int] = defaultdict(int)
        self.in_flight = 0

    def roll(self, second: int) -> None:
        for slots in (self.requests, self.tokens):
            for slot in [slot for slot in slots if slot <= second - WINDOW_S]:
                del slots[slot]


class Held(Struct):
    """A hold as the ledger keeps it."""

    hold: Hold
    arrived_unix_ns: int
    amount_nano: int
    second: int
    expires_at: datetime
    worker: str
    intent: bytes


CounterKey = tuple[str, str, str, datetime]


class MemoryLedger:
    """Ledger, Recorder and Sweeper in one: they share the counters. ``rows`` and ``bodies`` are what was recorded."""

    def __init__(
        self,
        worker: str = "worker",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        hold_s: float = 900.0,
        holds_wait_s: float = 0.2,
    ) -> None:
        self.rows: dict[UUID, Row] = {}
        self.bodies: dict[UUID, Bodies] = {}
        self.away = ""  # a reason: from now on the store is unavailable
        self._worker = worker
        self._now = now
        self._hold_s = hold_s
        self._holds_wait_s = holds_wait_s
        self._counters: dict[CounterKey, Figures] = {}
        self._windows: dict[tuple[str, str], Window] = {}
        self._holds: dict[UUID, Held] = {}

    def figures(self, tenant: str, claim: Claim) -> Figures:
        """What a level's counter says in the claim's period."""
        return self._counters.get(_counter_key(tenant, claim), Figures(claim.cap_nano))

    # ---------------------------------------------------------------------------------------- Ledger

    async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        keys = [claim.key for claim in claims]
        assert keys == sorted(set(keys)), "claims are not in lock order"
        self._require_store()
        await self._wait_for_holds(tenant, claims, estimate.amount_nano)
        self._refuse_by_budget(tenant, claims, estimate.amount_nano)
        now = self._now()
        windows = self._rolled(tenant, claims, now)
        for claim, window in windows:
            refuse_by_limit(claim, window, estimate.tokens, now.timestamp())
        for counter, claim in self._counters_of(tenant, claims):
            counter.held_nano += estimate.amount_nano
            counter.cap_nano = claim.cap_nano
        second = int(now.timestamp())
        for _, window in windows:
            window.requests[second] += 1
            window.tokens[second] += estimate.tokens
            window.in_flight += 1
        hold = Hold(op.id, tenant, estimate, tuple(claims), standing(windows, now.timestamp()))
        expires_at = now + timedelta(seconds=self._hold_s)
        self._holds[op.id] = Held(
            hold, op.arrived_unix_ns, estimate.amount_nano, second, expires_at, self._worker, draft()
        )
        return hold

    async def raise_to(self, op: Op, hold: Hold, amount_nano: int) -> Hold:
        self._require_store()
        if amount_nano <= hold.estimate.amount_nano:
            return hold
        held = self._holds.get(hold.id)
        if held is None:
            raise StoreUnavailable(f"store.hold_gone: the hold {hold.id} has expired and was settled")
        caps = {key: counter.cap_nano for key, counter in self._counters.items()}
        claims = [
            structs.replace(claim, cap_nano=caps.get(_counter_key(hold.tenant, claim), claim.cap_nano))
            for claim in hold.claims
            if claim.cap_nano >= 0
        ]
        more_nano = max(0, amount_nano - held.amount_nano)  # the caller's noun may be older than the last raise
        if more_nano:
            await self._wait_for_holds(hold.tenant, claims, more_nano)
            self._refuse_by_budget(hold.tenant, claims, more_nano)
            for counter, _ in self._counters_of(hold.tenant, claims):
                counter.held_nano += more_nano
            held.amount_nano += more_nano
        return structs.replace(hold, estimate=structs.replace(hold.estimate, amount_nano=amount_nano))

    def trim(self, op: Op, hold: Hold, amount_nano: int) -> None:
        held = self._holds.get(hold.id)
        if held is None or amount_nano >= held.amount_nano:
            return
        for counter, _ in self._counters_of(hold.tenant, held.hold.claims):
            counter.held_nano -= held.amount_nano - amount_nano
        held.amount_nano = amount_nano
        hold.estimate = structs.replace(hold.estimate, amount_nano=amount_nano)

    def leave(self, hold: Hold) -> None:
        """Its place is given back with its settlement."""

    # ---------------------------------------------------------------------------------------- Recorder

    async def record(self, entry: Entry) -> None:
        self.enqueue(entry)

    def enqueue(self, entry: Entry) -> None:
        self._require_store()
        self._settle(entry)

    # ---------------------------------------------------------------------------------------- Sweeper

    async def orphans(self, dead_workers: Sequence[str], limit: int) -> Sequence[Orphan]:
        self._require_store()
        found = [held for held in self._holds.values() if held.worker in dead_workers or held.expires_at < self._now()]
        return [
            Orphan(
                structs.replace(held.hold, estimate=Estimate(held.hold.estimate.tokens, 0, held.amount_nano)),
                held.arrived_unix_ns,
                held.worker,
                held.intent,
            )
            for held in sorted(found, key=lambda held: (held.hold.tenant, held.hold.id))[:limit]
        ]

    async def presume(self, op: Op, entries: Sequence[Entry]) -> Sequence[Row]:
        self._require_store()
        return [entry.row for entry in entries if entry.row.id in self._holds and self._settle(entry)]

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

    def _counters_of(self, tenant: str, claims: Iterable[Claim]) -> list[tuple[Figures, Claim]]:
        return [
            (self._counters.setdefault(_counter_key(tenant, claim), Figures(claim.cap_nano)), claim)
            for claim in claims
            if claim.cap_nano >= 0
        ]

    def _rolled(self, tenant: str, claims: Iterable[Claim], now: datetime) -> list[tuple[Claim, Window]]:
        limited = [claim for claim in claims if claim.requests_per_min or claim.tokens_per_min or claim.concurrent]
        windows = [(claim, self._windows.setdefault((tenant, claim.key), Window())) for claim in limited]
        for _, window in windows:
            window.roll(int(now.timestamp()))
        return windows

    async def _wait_for_holds(self, tenant: str, claims: Sequence[Claim], amount_nano: int) -> None:
        """While holds, not charges, stand in the way: for a bounded time."""
        until = time.monotonic() + self._holds_wait_s
        while time.monotonic() < until:
            short = [(self.figures(tenant, claim), claim.cap_nano) for claim in claims if claim.cap_nano >= 0]
            short = [(figures, cap) for figures, cap in short if figures.taken_nano + amount_nano > cap]
            charged = any(figures.charged_nano + figures.suspended_nano + amount_nano > cap for figures, cap in short)
            if not short or charged:
                return
            await asyncio.sleep(HOLDS_POLL_S)

    def _refuse_by_budget(self, tenant: str, claims: Sequence[Claim], amount_nano: int) -> None:
        for claim in claims:
            if claim.cap_nano >= 0 and self.figures(tenant, claim).taken_nano + amount_nano > claim.cap_nano:
                assert claim.period_end is not None, f"the budget of {claim.key} has no period"
                raise Refusal(
                    "reserve.budget_exhausted",
                    retry_after_s=max(0.0, (claim.period_end - self._now()).total_seconds()),
                    retryable=False,
                    level=claim.key,
                    period=claim.period,
                )

    def _settle(self, entry: Entry) -> bool:
        """Whether the row is new: then, and only then, its charge counts."""
        row = entry.row
        held = self._holds.pop(row.id, None)
        new = row.id not in self.rows
        if new:
            self.rows[row.id] = row
            if entry.bodies is not None:
                self.bodies[row.id] = entry.bodies
            for counter, _ in self._counters_of(row.tenant, entry.hold.claims if entry.hold else ()):
                counter.charged_nano += row.charged_nano
        if held is not None:
            for counter, _ in self._counters_of(row.tenant, held.hold.claims):
                counter.held_nano -= held.amount_nano
            used = entry.charge.tokens if entry.charge else 0
            self._correct(held, used, row.outcome is not Outcome.REFUSED)
        return new

    def _correct(self, held: Held, used: int, counts: bool) -> None:
        now = self._now()
        estimated = held.hold.estimate.tokens
        for _, window in self._rolled(held.hold.tenant, held.hold.claims, now):
            window.in_flight -= 1
            if used > estimated:
                window.tokens[int(now.timestamp())] += used - estimated
            elif held.second in window.tokens:
                window.tokens[held.second] -= estimated - used
            if not counts and held.second in window.requests:
                window.requests[held.second] -= 1


def arrived(row: Row) -> datetime:
    return datetime.fromtimestamp(row.arrived_unix_ns / 1e9, UTC)


def _counter_key(tenant: str, claim: Claim) -> CounterKey:
    return tenant, claim.key, claim.period, claim.period_start or datetime.min.replace(tzinfo=UTC)


def refuse_by_limit(claim: Claim, window: Window, tokens: int, now_s: float) -> None:
    """Raises Refusal reserve.* when the level's window has no room."""
    requests, used = sum(window.requests.values()), sum(window.tokens.values())
    if claim.requests_per_min and requests + 1 > claim.requests_per_min:
        after_s = room_after_s(window.requests, requests + 1 - claim.requests_per_min, now_s)
        raise Refusal("reserve.requests_limit", retry_after_s=after_s, level=claim.key)
    if claim.tokens_per_min and used + tokens > claim.tokens_per_min:
        after_s = room_after_s(window.tokens, used + tokens - claim.tokens_per_min, now_s)
        raise Refusal("reserve.tokens_limit", retry_after_s=after_s, level=claim.key)
    if claim.concurrent and window.in_flight + 1 > claim.concurrent:
        raise Refusal("reserve.concurrent_limit", retry_after_s=1.0, level=claim.key)


def room_after_s(slots: dict[int, int], surplus: int, now_s: float) -> float | None:
    """Seconds until ``surplus`` has left the window; None = it never will."""
    for slot in sorted(slots):
        surplus -= slots[slot]
        if surplus <= 0:
            return slot + WINDOW_S - now_s
    return None


def standing(windows: Sequence[tuple[Claim, Window]], now_s: float) -> Standing:
    """What is left at the tightest level."""
    requests = [
        (claim.requests_per_min - sum(window.requests.values()), claim.requests_per_min, window.requests)
        for claim, window in windows
        if claim.requests_per_min
    ]
    tokens = [
        (claim.tokens_per_min - sum(window.tokens.values()), claim.tokens_per_min, window.tokens)
        for claim, window in windows
        if claim.tokens_per_min
    ]
    found: list[float] = []
    for level in (requests, tokens):
        left, limit, slots = min(level, key=lambda entry: entry[0], default=(0, 0, {}))
        found += [limit, left, (room_after_s(slots, 1, now_s) or 0.0) if limit else 0.0]
    return Standing(int(found[0]), int(found[1]), found[2], int(found[3]), int(found[4]), found[5])
