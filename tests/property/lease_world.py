"""Several workers over one store, simulated: their clocks, the way to the store, its faults, and what must always be true.

A worker is the real LeasedLedger. Its way to the store waits a few turns of the loop before and after each question, so that
questions overtake each other; any may find the store away, or its answer may be lost. What is recorded goes through a queue
like the recorder's. The store is the one in memory or PostgreSQL: a `Ground`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

import msgspec
from msgspec import structs

from shipworthy.adapters.leasing.ledger import LeasedLedger
from shipworthy.control.sweep import presumed, sweep
from shipworthy.kit.builders import a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.kit.clock import HandClock
from shipworthy.kit.ledger import MemoryLedger
from shipworthy.kit.memory_levels import Figures
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Outcome
from shipworthy.model.lease import Purse
from shipworthy.model.ledger import Claim, Hold
from shipworthy.model.op import Op
from shipworthy.ports import SUSPENDED_S, Entry, Intent

MINUTE_S = 60.0
BEHIND_S = 11.0  # a writer is never so far behind: the store gave its worker up for dead already
HOLD_S = 900.0  # an exchange that lasts longer is taken for lost, and its place is given to others
NAMES = itertools.count()


@dataclass
class Kept:
    """A lease as the store has it."""

    nano: int
    suspended: bool
    presumed: bool
    levels: tuple[str, ...]


@dataclass
class Seen:
    """All that the store says at one moment."""

    figures: dict[str, Figures]
    in_flight: dict[str, int]
    leased: dict[str, tuple[int, int, int]]  # requests, tokens, places of each level's window
    leases: dict[UUID, Kept]
    held: dict[UUID, int]  # direct holds
    intents: set[UUID]
    rows: dict[UUID, tuple[int, int]]  # charged, held


class Writer(Protocol):
    def write(self, intents: Sequence[Intent], entries: Sequence[Entry]) -> None: ...
    def hang_up(self) -> None: ...


class Ground(Protocol):
    """A store. ``join`` gives a worker its ledger and its writer."""

    sweeper: object
    waits: bool  # others may be served while one is

    def join(self, worker: str) -> tuple[object, Writer]: ...
    def see(self, tenant: str, keys: Sequence[str]) -> Seen: ...


class MemoryWriter:
    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    def write(self, intents: Sequence[Intent], entries: Sequence[Entry]) -> None:
        for intent in intents:
            self._ledger.intend(intent)
        for entry in entries:
            self._ledger.enqueue(entry)

    def hang_up(self) -> None:
        self._ledger.hang_up()


class MemoryGround:
    waits = False

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._ledger = MemoryLedger("nobody", now, holds_wait_s=0)
        self.sweeper = self._ledger.of_worker("sweeper")

    def join(self, worker: str) -> tuple[MemoryLedger, Writer]:
        ledger = self._ledger.of_worker(worker)
        return ledger, MemoryWriter(ledger)

    def see(self, tenant: str, keys: Sequence[str]) -> Seen:
        ground, ledger = self._ledger.ground, self._ledger
        windows = {key: window for (of, key), window in ground.levels._windows.items() if of == tenant}
        held = [held for held in ground.holds.values() if held.hold.tenant == tenant]
        return Seen(
            {key: structs.replace(ledger.figures(tenant, a_claim(key, 0))) for key in keys},
            {key: window.in_flight for key, window in windows.items()},
            {
                key: (window.leased_requests, window.leased_tokens, window.leased_places)
                for key, window in windows.items()
            },
            {
                lease.id: Kept(
                    lease.nano, lease.suspended_at is not None, lease.presumed, tuple(c.key for c in lease.claims)
                )
                for lease in ledger.leases(tenant)
            },
            {each.hold.id: each.amount_nano for each in held if each.hold.lease_id is None},
            {each.hold.id for each in held if each.hold.lease_id is not None},
            {row.id: (row.charged_nano, row.held_nano) for row in ledger.rows.values() if row.tenant == tenant},
        )


class Wire:
    """A worker's way to the store: slow by a few turns of the loop, and not always there and back."""

    def __init__(self, world: World, store: object) -> None:
        self._world = world
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def asked(*args: object, **named: object) -> object:
            fate = self._world.fate()
            await self._world.linger()
            if fate == "away":
                raise StoreUnavailable("test.away: the store is away")
            answer = await getattr(self._store, name)(*args, **named)
            await self._world.linger()
            if fate == "lost":
                raise StoreUnavailable("test.lost: the answer got lost")
            return answer

        return asked


class Scribe:
    """A recorder whose writer runs when the test says so, and at once for whoever waits."""

    def __init__(self, world: World, writer: Writer) -> None:
        self.settled: Callable[[Entry], None]
        self.queue: deque[tuple[Entry | Intent, bool]] = deque()
        self._world = world
        self._writer = writer

    async def record(self, entry: Entry) -> None:
        self._put(entry, waited=True)
        await self._written()

    def enqueue(self, entry: Entry) -> None:
        self._put(entry, waited=False)
        self.settled(entry)

    async def intended(self, intent: Intent) -> None:
        self._put(intent, waited=True)
        await self._written()

    def intend(self, intent: Intent) -> None:
        self._put(intent, waited=False)

    def _put(self, what: Entry | Intent, *, waited: bool) -> None:
        if self._world.fate() == "away":
            raise StoreUnavailable("test.queue_full: too many wait")
        if isinstance(what, Entry) and what.hold is not None and isinstance(what.hold.intent, Intent):
            what.hold.intent.void = True
        self.queue.append((what, waited))

    async def _written(self) -> None:
        fate = self._world.fate()
        await self._world.linger()
        if fate == "away":  # it waited in vain; what it gave is still queued, and will be written
            raise StoreUnavailable("test.slow: not committed in time")
        self.flush()
        if fate == "lost":
            await self._world.linger()

    def flush(self, *, twice: bool = False) -> None:
        """Writes all that is queued; ``twice``: as if the first answer had been lost."""
        batch, self.queue = list(self.queue), deque()
        before = self._world.see()
        for _ in range(1 + twice):
            intents = [what for what, _ in batch if isinstance(what, Intent) and not what.void]
            self._writer.write(intents, [what for what, _ in batch if isinstance(what, Entry)])
        if not self._world.ground.waits:
            self._world.check_backed(before)
        for what, waited in batch:
            if isinstance(what, Entry) and waited:
                self.settled(what)

    def hang_up(self) -> None:
        self.queue.clear()
        self._writer.hang_up()

    def lose_connection(self) -> None:
        self._writer.hang_up()

    def unrecorded(self) -> list[Entry]:
        """What was settled, and is not in the store."""
        return [what for what, waited in self.queue if isinstance(what, Entry) and not waited]


class Worker:
    def __init__(self, world: World, *, strict: bool) -> None:
        self.name = f"worker-{next(NAMES)}"
        self.strict = strict
        self.clock = HandClock()
        store, writer = world.ground.join(self.name)
        self.scribe = Scribe(world, writer)
        self.ledger = LeasedLedger(
            Wire(world, store), self.clock, lambda _: None, lambda: strict, lambda: len(world.workers)
        )
        self.ledger.recorder = self.scribe
        self.scribe.settled = self.ledger.settled

    def purses(self) -> list[Purse]:
        return [purse for path in self.ledger._paths for purse in path.purses()]


@dataclass
class Exchange:
    """One request: where, for how much, and what became of it."""

    op: Op
    worker: Worker
    claims: tuple[Claim, ...]
    admitted_s: float = 0.0
    tokens: int = 0
    hold: Hold | None = None
    sent: bool = False  # to its provider: it may cost money from now on
    left: bool = False  # it has ended, recorded or not
    refused: bool = False

    def takes_a_place(self, now_s: float) -> bool:
        """Unless it lasts for longer than any may, or its worker was not heard of for so long that it is believed dead."""
        assert self.hold is not None
        if self.hold.lease_id is None:
            return self.admitted_s > now_s - HOLD_S
        purse = self.hold.purse
        return purse is not None and self.worker.clock.monotonic_ns() < purse.until_ns + int(SUSPENDED_S * 1e9)

    def at(self, key: str) -> bool:
        return any(claim.key == key for claim in self.claims)


@dataclass
class World:
    """``seed`` decides how questions overtake each other; ``fates`` what becomes of the next ones."""

    tenant: str
    seed: int
    keys: tuple[str, ...]
    caps: dict[str, int]
    requests: int
    tokens: int
    concurrent: int
    at: datetime = datetime(2026, 6, 15, 12, tzinfo=UTC)
    fates: deque[str] = field(default_factory=deque)
    workers: list[Worker] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    exchanges: dict[UUID, Exchange] = field(default_factory=dict)
    leased: int = 0  # draws from leases, for the test to know that there were some

    ground: Ground = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._paths: dict[tuple[Claim, ...], tuple[Claim, ...]] = {}
        self.caps_max = dict(self.caps)

    def fate(self) -> str:
        return self.fates.popleft() if self.fates else "ok"

    async def linger(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 2, 5))):
            await asyncio.sleep(0)

    def hire(self, *, strict: bool) -> None:
        self.workers.append(Worker(self, strict=strict))

    def pass_s(self, seconds: float) -> None:
        """Nobody's writer is behind for long."""
        if seconds >= BEHIND_S:
            for worker in self.workers:
                worker.scribe.flush()
        self.at += timedelta(seconds=seconds)
        for worker in self.workers:
            worker.clock.pass_s(seconds)

    def claims(self, keys: Sequence[str]) -> tuple[Claim, ...]:
        """The same tuple for the same path, as the stage hands it in."""
        claims = tuple(
            a_claim(
                key,
                self.caps[key],
                requests=self.requests,
                tokens=self.tokens,
                concurrent=self.concurrent if key == "tenant" else 0,
            )
            for key in sorted(keys)
        )
        return self._paths.setdefault(claims, claims)

    # ---------------------------------------------------------------------------------------- what happens

    async def reserve(self, worker: Worker, keys: Sequence[str], amount_nano: int, tokens: int) -> Exchange | None:
        op, claims = an_op(), self.claims(keys)
        op.clock = worker.clock
        exchange = self.exchanges[op.id] = Exchange(op, worker, claims, tokens=tokens)
        row = a_row(op, self.tenant, outcome=Outcome.FAILED)
        try:
            hold = await worker.ledger.reserve(
                op, self.tenant, claims, an_estimate(amount_nano, tokens), lambda: msgspec.msgpack.encode(row)
            )
        except (Refusal, StoreUnavailable, asyncio.CancelledError):
            await self.record_refused(exchange)
            return None
        exchange.hold = hold
        exchange.admitted_s = self.at.timestamp()
        self.leased += hold.lease_id is not None
        self.check_admission()
        return exchange

    async def send(self, exchange: Exchange) -> bool:
        """Whether it may be sent: as the call stage does, not before the ledger was told."""
        assert exchange.hold is not None
        try:
            await exchange.worker.ledger.announce(exchange.op, exchange.hold)
        except StoreUnavailable:
            return False
        exchange.sent = True
        return True

    async def record_refused(self, exchange: Exchange) -> None:
        """As the pipeline does: without a hold, whatever the store may have set aside."""
        exchange.left = exchange.refused = True
        entry = Entry(a_row(exchange.op, self.tenant, outcome=Outcome.REFUSED), None, None, None)
        await self.record(exchange.worker, entry)

    async def settle(self, exchange: Exchange, amount_nano: int, tokens: int, outcome: Outcome) -> None:
        assert exchange.hold is not None
        hold, worker = exchange.hold, exchange.worker
        if outcome is Outcome.SERVED and not exchange.sent and not await self.send(exchange):
            amount_nano, tokens, outcome = 0, 0, Outcome.REFUSED
        charge = a_charge(hold, amount_nano, tokens)
        exchange.refused = outcome is Outcome.REFUSED
        exchange.left = True
        exchange.tokens = min(exchange.tokens, tokens)
        entry = Entry(a_settled_row(exchange.op, hold, charge, outcome=outcome), None, hold, charge)
        try:
            await self.record(worker, entry)
        finally:
            worker.ledger.leave(hold)

    async def record(self, worker: Worker, entry: Entry) -> None:
        try:
            if worker.strict:
                await worker.scribe.record(entry)
            else:
                worker.scribe.enqueue(entry)
        except StoreUnavailable:
            pass

    def crash(self, worker: Worker) -> None:
        worker.scribe.hang_up()
        self.workers.remove(worker)
        self.dead.append(worker.name)
        for exchange in self.exchanges.values():
            exchange.left |= exchange.worker is worker

    async def sweep(self, *, told: bool, half: bool = False) -> None:
        """What is presumed was set aside before: no level has less room afterwards. ``half``: the sweeper dies over it."""
        dead, sweeper = self.dead if told else [], self.ground.sweeper
        before = self.see()
        if half:
            await sweeper.suspend(await sweeper.strays(dead, 100))
            orphans = await sweeper.orphans(dead, 100)
            await sweeper.presume(an_op(), [presumed(an_op(), orphan) for orphan in orphans[: len(orphans) // 2]])
        else:
            await sweep(an_op(), sweeper, dead)
        after = self.see()
        for key in self.keys:
            assert after.figures[key].taken_nano <= before.figures[key].taken_nano, (
                f"presumed more than was held at {key}"
            )

    async def sleep(self, worker: Worker, *, half: bool) -> None:
        """It hangs, with its connections lost, until it is believed dead and buried; then it goes on."""
        worker.scribe.flush()
        worker.scribe.lose_connection()
        for seconds in (11, 61, 1):
            self.pass_s(seconds)
            await self.sweep(told=False, half=half)

    async def calm(self) -> None:
        """Until nothing is under way any more."""
        for worker in self.workers:
            while worker.ledger._refills:
                await asyncio.wait(set(worker.ledger._refills))

    def under_way(self) -> list[Exchange]:
        return [each for each in self.exchanges.values() if each.hold is not None and not each.left]

    # ---------------------------------------------------------------------------------------- what must be true

    def check_admission(self) -> None:
        """In any sliding minute, and at any moment, no more than the limits."""
        now_s = self.at.timestamp()
        for key in self.keys:
            mine = [each for each in self.exchanges.values() if each.hold is not None and each.at(key)]
            lately = [each for each in mine if each.admitted_s > now_s - MINUTE_S and not each.refused]
            if self.requests:
                assert len(lately) <= self.requests, f"{len(lately)} requests in a minute at {key}"
            if self.tokens:
                assert sum(each.tokens for each in lately) <= self.tokens, f"too many tokens in a minute at {key}"
        if self.concurrent:
            at_once = [each for each in self.under_way() if each.at("tenant") and each.takes_a_place(now_s)]
            assert len(at_once) <= self.concurrent, f"{len(at_once)} at once"

    def see(self) -> Seen:
        return self.ground.see(self.tenant, self.keys)

    def check_backed(self, before: Seen) -> None:
        """What was recorded since had been set aside, but for what went beyond a hold: no level has less room for it."""
        after = self.see()
        for key in self.keys:
            new = [money for of, money in after.rows.items() if of not in before.rows and self.exchanges[of].at(key)]
            overrun_nano = sum(max(0, charged - held) for charged, held in new)
            more_nano = after.figures[key].taken_nano - before.figures[key].taken_nano
            assert more_nano <= overrun_nano, (
                f"{more_nano - overrun_nano} were charged that nobody had set aside at {key}"
            )

    async def check(self) -> None:
        seen = self.see()
        for key in self.keys:
            self._check_level(seen, key)
        for worker in self.workers:
            self._check_worker(seen, worker)

    def _check_level(self, seen: Seen, key: str) -> None:
        figures = seen.figures[key]
        rows = [money for of, money in seen.rows.items() if self.exchanges[of].at(key)]
        leases = [lease for lease in seen.leases.values() if key in lease.levels]
        assert figures.charged_nano == sum(charged for charged, _ in rows), key
        assert figures.held_nano == sum(held for of, held in seen.held.items() if self.exchanges[of].at(key)), key
        assert figures.leased_nano == sum(lease.nano for lease in leases if not lease.suspended), key
        assert figures.suspended_nano == sum(lease.nano for lease in leases if lease.suspended), key
        overrun_nano = sum(max(0, charged - held) for charged, held in rows)
        assert figures.taken_nano - overrun_nano <= self.caps_max[key], f"beyond the cap of {key}: {figures}"

    def _check_worker(self, seen: Seen, worker: Worker) -> None:
        """What a worker believes is never more than what the store set aside for it."""
        for purse in worker.purses():
            spendable = not purse.retired and worker.clock.monotonic_ns() < purse.until_ns
            lease = seen.leases.get(purse.id)
            if lease is None or lease.presumed:
                told = not (spendable and purse.nano)
                assert told or worker.name in self.dead or purse.ended, "a worker spends what is not its own"
                continue
            held_nano = sum(
                each.hold.estimate.amount_nano
                for each in self.exchanges.values()
                if each.hold is not None and each.hold.purse is purse
            )
            passing_nano = sum(
                min(entry.row.charged_nano, entry.hold.estimate.amount_nano)
                for entry in worker.scribe.unrecorded()
                if entry.hold is not None and entry.hold.lease_id == purse.id
            )
            believed_nano = purse.nano + purse._owed_nano + held_nano + passing_nano
            assert purse.nano >= 0
            assert not purse.budgeted or believed_nano <= lease.nano, (believed_nano, lease, purse.retired)

    async def end(self) -> None:
        """Everything is settled, every worker gives back what it has and goes; then nothing is set aside any more."""
        self.fates.clear()
        await self.calm()
        for exchange in self.under_way():
            await self.settle(exchange, 1, 1, Outcome.SERVED)
        for worker in list(self.workers):
            worker.scribe.flush()
            await worker.ledger.close()
            worker.scribe.flush()
            await self.check()
            self.crash(worker)
        for _ in range(3):
            self.pass_s(1_000)
            await self.sweep(told=True)
            await self.check()
        seen = self.see()
        assert (seen.leases, seen.held, seen.intents) == ({}, {}, set())
        for figures in seen.figures.values():
            assert (figures.held_nano, figures.leased_nano, figures.suspended_nano) == (0, 0, 0)
        assert not any(seen.in_flight.values())
        assert not any(itertools.chain.from_iterable(seen.leased.values()))
