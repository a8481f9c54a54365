"""The ledger straight in the store: a reservation is one statement, exact on any number of workers.

When only holds, not charges, stand in the way of a budget, it asks again for a bounded time before it refuses: holds are
ceilings, and most of each comes back within moments. Nothing is locked while it waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct, json, structs
from psycopg.rows import class_row

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store, StoreRole
from shipworthy.adapters.store.queue import Queue
from shipworthy.adapters.store.rows import encode
from shipworthy.adapters.store.verdict import TurnVerdict, Verdict, refusal
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.lease import Turn, Turned
from shipworthy.model.ledger import Claim, Estimate, Hold
from shipworthy.model.op import Op
from shipworthy.ports import Advance, Ask, Draft

LEASES_CHANNEL = "shipworthy_leases"


class LedgerBounds(Struct, frozen=True):
    """Every bound of a reservation."""

    hold_s: float = 900.0  # a hold's life; a request with a later deadline gets that and a minute
    holds_wait_ms: float = 200.0  # how long to wait for holds to be released before a budget refuses
    holds_poll_ms: float = 15.0  # at first; doubled each time
    holds_waiters_max: int = 64  # a worker; whoever comes beyond that is refused at once
    asking_max: int = 4  # reservations that ask the store at once; of its connections, some stay free for others
    queue_max: int = 2_000  # that wait for their turn to ask
    queue_s: float = 2.0  # for which they do


class PostgresLedger:
    """ports.LeaseStore. ``now`` None means the store's clock, which all workers share; tests hand in their own.

    While ``strict`` says so a hold survives whatever crashes. Otherwise nobody waits for the disk: a crash of the store may
    forget the holds of its last 0.6 s, so that as much may be admitted beyond a cap; what they cost is still charged with
    their rows, and lost only if the worker dies too.
    """

    def __init__(
        self,
        store: Store,
        worker: str,
        bounds: LedgerBounds | None = None,
        now: Callable[[], datetime] | None = None,
        strict: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._worker = worker
        self._bounds = bounds or LedgerBounds()
        self._now = now
        self._strict = strict
        self._waiting = 0
        self._queue = Queue(self._bounds.asking_max, self._bounds.queue_max, self._bounds.queue_s)
        self._sql = blocks("ledger")

    async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        """Raises Refusal reserve.*, StoreUnavailable."""
        asked = self._asked(op, tenant, claims, estimate, draft(), None)
        verdict = await self._patiently(lambda: self._ask_in_turn(tenant, claims, estimate, asked))
        if verdict.reason is not None:
            raise refusal(verdict)
        return Hold(op.id, tenant, estimate, tuple(claims), verdict.standing())

    async def reserve_ahead(
        self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft, ask: Ask
    ) -> Advance:
        """Raises Refusal reserve.*, StoreUnavailable."""
        asked = self._asked(op, tenant, claims, estimate, draft(), ask)
        verdict = await self._patiently(lambda: self._ask_in_turn(tenant, claims, estimate, asked))
        if verdict.reason is not None:
            raise refusal(verdict)
        return verdict.advance()

    async def refill(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, ask: Ask) -> Advance:
        """Raises Refusal reserve.*, StoreUnavailable."""
        asked = {**self._asked(op, tenant, claims, estimate, b"", ask), "id": None}
        verdict = await self._ask("reserve_ahead", asked)
        if verdict.reason is not None:
            raise refusal(verdict)
        return verdict.advance()

    async def top_up(self, op: Op, tenant: str, lease_id: UUID, more_nano: int) -> None:
        """Raises Refusal reserve.budget_exhausted, StoreUnavailable."""
        asked = {"tenant": tenant, "lease": lease_id, "more": more_nano}
        verdict = await self._patiently(lambda: self._ask("top_up", asked))
        if verdict.reason == "hold_gone":
            raise StoreUnavailable(f"store.lease_gone: the lease {lease_id} was taken for a dead worker's")
        if verdict.reason is not None:
            raise refusal(verdict)

    async def turn(self, tenant: str, turns: Sequence[Turn], ttl_s: float) -> Sequence[Turned]:
        """Raises StoreUnavailable."""
        now = self._now() if self._now else None
        asked = {"tenant": tenant, "turns": encode(turns).decode(), "ttl_s": ttl_s, "now": now}
        try:
            async with self._store.ahead() as conn:  # said once: nothing must be given back twice
                cursor = conn.cursor(row_factory=class_row(TurnVerdict))
                answers = await (await cursor.execute(self._sql["turn"], asked)).fetchall()
        except StoreUnavailable:
            await self._store.discard_dead(StoreRole.APP)
            raise
        return [Turned(each.lease, each.gone, each.second, each.standing()) for each in answers]

    async def announce(self, op: Op, hold: Hold) -> None:
        """A direct hold says it itself."""

    def trim(self, op: Op, hold: Hold, amount_nano: int) -> None:
        """A direct hold keeps what it has until it is settled."""

    def leave(self, hold: Hold) -> None:
        """The place of a direct hold is given back with its settlement."""

    def _asked(
        self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, intent: bytes, ask: Ask | None
    ) -> dict[str, object]:
        return {
            "tenant": tenant,
            "id": op.id,
            "arrived_unix_ns": op.arrived_unix_ns,
            "claims": claims_json(claims),
            "amount_nano": estimate.amount_nano,
            "tokens": estimate.tokens,
            "intent": intent,
            "worker": self._worker,
            "expires_s": self._expires_s(op),
            "durable": self._strict(),
            "lease": ask.lease_id if ask is not None else None,
            "wished": ask is not None,
            "nano": ask.wish.nano if ask is not None else 0,
            "requests": ask.wish.requests if ask is not None else 0,
            "wish_tokens": ask.wish.tokens if ask is not None else 0,
            "places": ask.wish.places if ask is not None else 0,
            "workers": ask.workers if ask is not None else 0,
            "ttl_s": ask.ttl_s if ask is not None else 0.0,
            "direct": ask is None or ask.direct,
        }

    async def raise_to(self, op: Op, hold: Hold, amount_nano: int) -> Hold:
        """Raises Refusal reserve.budget_exhausted (the old hold stays), StoreUnavailable."""
        if amount_nano <= hold.estimate.amount_nano:
            return hold
        asked = {"tenant": hold.tenant, "id": hold.id, "amount_nano": amount_nano}
        verdict = await self._patiently(lambda: self._ask("raise_hold", asked))
        if verdict.reason == "hold_gone":
            raise StoreUnavailable(f"store.hold_gone: the hold {hold.id} has expired and was settled")
        if verdict.reason is not None:
            raise refusal(verdict)
        return structs.replace(hold, estimate=structs.replace(hold.estimate, amount_nano=amount_nano))

    def _expires_s(self, op: Op) -> float:
        left_s = (op.deadline_ns - op.clock.monotonic_ns()) / 1e9 if op.deadline_ns else 0.0
        return max(self._bounds.hold_s, left_s + 60.0)

    async def _patiently(self, ask: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """Asks until the answer is final: admitted, refused for more than holds, or the wait is over."""
        verdict = await ask()
        if not verdict.holds_only or self._waiting >= self._bounds.holds_waiters_max:
            return verdict
        self._waiting += 1
        try:
            return await self._wait_for_holds(ask, verdict)
        finally:
            self._waiting -= 1

    async def _wait_for_holds(self, ask: Callable[[], Awaitable[Verdict]], verdict: Verdict) -> Verdict:
        until = time.monotonic() + self._bounds.holds_wait_ms / 1e3
        pause_s = self._bounds.holds_poll_ms / 1e3
        while verdict.holds_only and (left_s := until - time.monotonic()) > 0:
            spread = random.uniform(0.5, 1.5)  # noqa: S311 - so that callers do not ask in step
            await asyncio.sleep(min(pause_s * spread, left_s))
            pause_s *= 2
            verdict = await ask()
        return verdict

    async def _ask_in_turn(
        self, tenant: str, claims: Sequence[Claim], estimate: Estimate, asked: Mapping[str, object]
    ) -> Verdict:
        """Asks when it is its turn, unless others were refused as much meanwhile."""
        return await self._queue.ask(tenant, claims, estimate, lambda: self._ask("reserve_ahead", asked))

    async def _ask(self, block: str, asked: Mapping[str, object]) -> Verdict:
        statement = self._sql[block]

        async def question(conn: Connection, again: bool) -> Verdict:
            now = self._now() if self._now else None
            cursor = conn.cursor(row_factory=class_row(Verdict))
            await cursor.execute(statement, {**asked, "now": now, "again": again})
            verdict = await cursor.fetchone()
            assert verdict is not None, "a function that returns a row returned none"
            return structs.replace(verdict, again=True) if again else verdict

        return await self._store.ask(StoreRole.APP, question)


class ClaimLine(Struct, frozen=True):
    """A claim as the type ``claim`` of migration 0003."""

    key: str
    cap: int
    period: str
    period_start: datetime | None
    period_end: datetime | None
    requests: int
    tokens: int
    concurrent: int


_decode_claims = json.Decoder(tuple[ClaimLine, ...]).decode


def claims_json(claims: Sequence[Claim]) -> str:
    return encode([_line(claim) for claim in claims]).decode()


def _line(claim: Claim) -> ClaimLine:
    assert claim.cap_nano < 0 or claim.period_start is not None, f"the budget of {claim.key} has no period"
    return ClaimLine(
        claim.key,
        claim.cap_nano,
        claim.period,
        claim.period_start,
        claim.period_end,
        claim.requests_per_min,
        claim.tokens_per_min,
        claim.concurrent,
    )


def claims_of(text: str) -> tuple[Claim, ...]:
    """The claims of a stored hold."""
    return tuple(
        Claim(
            line.key,
            line.cap,
            line.period,
            line.period_start,
            line.period_end,
            line.requests,
            line.tokens,
            line.concurrent,
        )
        for line in _decode_claims(text)
    )
