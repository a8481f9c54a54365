"""Any interleaving of reserve, settle, raise, expire and changed caps keeps the books: `charged + held + … + free = cap`.

The store's ledger and the one in memory are played side by side: after each step both must have said the same and hold the
same figures, and both must equal what a ledger of plain sums says.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec import structs
from psycopg.rows import class_row

from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import LedgerBounds, PostgresLedger
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.recorder import PostgresRecorder
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.sweep import sweep
from shipworthy.kit.builders import a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.kit.ledger import Figures, MemoryLedger
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Outcome
from shipworthy.model.ledger import Claim, Hold
from shipworthy.model.op import Op
from shipworthy.ports import Entry

KEYS = ("team=a", "team=a/use_case=b", "tenant")
NAMES = itertools.count()
# Few values that add up to one another: edges are met often.
CAPS = st.sampled_from([0, 100, 150, 200, 300])
AMOUNTS = st.sampled_from([0, 1, 50, 99, 100, 101, 150])
TOKENS = st.sampled_from([0, 1, 19, 20, 21, 40])


class LedgerMachine(RuleBasedStateMachine):
    """Two ledgers, one clock, one tenant a run."""

    url = ""
    loop: asyncio.AbstractEventLoop
    store: Store

    holds = Bundle("holds")

    @initialize(caps=st.tuples(CAPS, CAPS, CAPS), concurrent=st.sampled_from([2, 3]))
    def begin(self, caps: tuple[int, ...], concurrent: int) -> None:
        self.tenant = f"machine-{next(NAMES)}"
        self.at = datetime(2026, 6, 15, 12, tzinfo=UTC)
        self.caps = dict(zip(KEYS, caps, strict=True))
        self.concurrent = concurrent
        self.charged = dict.fromkeys(KEYS, 0)
        self.held: dict[str, tuple[tuple[str, ...], int]] = {}
        vault = Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))
        self.memory = MemoryLedger(self.tenant, lambda: self.at, holds_wait_s=0)
        bounds = LedgerBounds(holds_wait_ms=0)
        self.real = PostgresLedger(self.store, self.tenant, bounds, lambda: self.at)
        self.recorder = PostgresRecorder(self.store, vault, lambda _: None, now=lambda: self.at)
        self.sweeper = StoreSweeper(self.store, vault, lambda: self.at)

    def run(self, act):
        return self.loop.run_until_complete(act)

    def claims(self, keys: tuple[str, ...]) -> list[Claim]:
        return [
            a_claim(key, self.caps[key], requests=6, tokens=60, concurrent=self.concurrent if key == "tenant" else 0)
            for key in keys
        ]

    async def both(self, act) -> object:
        """What both say, which must be the same: a hold, or the refusal in full."""
        said = []
        for ledger in (self.memory, self.real):
            try:
                said.append(await act(ledger))
            except Refusal as refusal:
                after = None if refusal.retry_after_s is None else round(refusal.retry_after_s, 3)
                said.append((refusal.code, refusal.facts.get("level"), after))
            except StoreUnavailable as gone:
                said.append(str(gone))
        if isinstance(said[0], Hold) and isinstance(said[1], Hold):
            standings = [[round(figure, 3) for figure in structs.astuple(hold.standing)] for hold in said]
            assert standings[0] == standings[1]
            assert said[0].estimate == said[1].estimate
        else:
            assert said[0] == said[1]
        return said[1]

    @rule(target=holds, keys=st.sets(st.sampled_from(KEYS), min_size=1), amount=AMOUNTS, tokens=TOKENS)
    def reserve(self, keys: set[str], amount: int, tokens: int) -> tuple[Op, Hold] | None:
        op = an_op()
        claims = self.claims(tuple(sorted(keys)))
        intent = msgspec.msgpack.encode(a_row(op, self.tenant))
        said = self.run(
            self.both(
                lambda ledger: ledger.reserve(op, self.tenant, claims, an_estimate(amount, tokens), lambda: intent)
            )
        )
        if not isinstance(said, Hold):
            return None
        for key in keys:
            assert not amount or self.taken(key) + amount <= self.caps[key], "admitted beyond a cap"
        self.held[str(op.id)] = tuple(keys), amount
        return op, said

    @rule(held=holds, amount=AMOUNTS)
    def raise_to(self, held: tuple[Op, Hold] | None, amount: int) -> None:
        if held is None:
            return
        op, hold = held
        said = self.run(self.both(lambda ledger: ledger.raise_to(op, hold, amount)))
        if isinstance(said, Hold) and str(op.id) in self.held:
            keys, before = self.held[str(op.id)]
            self.held[str(op.id)] = keys, max(before, amount)

    @rule(
        held=consumes(holds), amount=AMOUNTS, tokens=TOKENS, outcome=st.sampled_from([Outcome.SERVED, Outcome.REFUSED])
    )
    def settle(self, held: tuple[Op, Hold] | None, amount: int, tokens: int, outcome: Outcome) -> None:
        self.say(held, amount, tokens, outcome)

    @rule(held=holds, amount=AMOUNTS, tokens=TOKENS)
    def settle_but_lose_the_answer(self, held: tuple[Op, Hold] | None, amount: int, tokens: int) -> None:
        """The same may be settled again later, or swept."""
        self.say(held, amount, tokens, Outcome.SERVED)

    def say(self, held: tuple[Op, Hold] | None, amount: int, tokens: int, outcome: Outcome) -> None:
        if held is None:
            return
        op, hold = held
        charge = a_charge(hold, amount, tokens)
        entry = Entry(a_settled_row(op, hold, charge, outcome=outcome), None, hold, charge)
        self.run(self.memory.record(entry))
        self.run(self.recorder.record(entry))
        if str(op.id) in self.held:
            keys, _ = self.held.pop(str(op.id))
            for key in keys:
                self.charged[key] += amount

    @rule(seconds=st.sampled_from([0.4, 1, 7, 30, 61, 500]))
    def time_passes(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    @rule(key=st.sampled_from(KEYS), cap=CAPS)
    def a_cap_changes(self, key: str, cap: int) -> None:
        self.caps[key] = cap

    @rule(dead=st.booleans())
    def somebody_sweeps(self, dead: bool) -> None:
        workers = [self.tenant] if dead else []
        swept = self.run(sweep(an_op(), self.memory, workers))
        rows = len(self.memory.rows)
        self.run(sweep(an_op(), self.sweeper, workers))
        gone = [row for row in self.memory.rows.values() if "presumed" in row.flags and str(row.id) in self.held]
        assert len(gone) == swept <= rows
        for row in gone:
            keys, amount = self.held.pop(str(row.id))
            assert row.charged_nano == amount
            for key in keys:
                self.charged[key] += amount

    def taken(self, key: str) -> int:
        return self.charged[key] + sum(amount for keys, amount in self.held.values() if key in keys)

    @invariant()
    def everything_adds_up(self) -> None:
        if not hasattr(self, "tenant"):
            return
        for claim in self.claims(KEYS):
            memory = self.memory.figures(self.tenant, claim)
            real = self.run(self.figures(claim))
            assert (memory.charged_nano, memory.held_nano) == (real.charged_nano, real.held_nano)
            expected = (self.charged[claim.key], self.taken(claim.key) - self.charged[claim.key])
            assert (real.charged_nano, real.held_nano) == expected
            assert real.leased_nano == real.suspended_nano == 0

    async def figures(self, claim: Claim) -> Figures:
        async with self.store.connection("shipworthy_operator") as conn:
            cursor = conn.cursor(row_factory=class_row(Figures))
            await cursor.execute(
                "select cap_nano, charged_nano, held_nano, leased_nano, suspended_nano from counter"
                " where tenant = %s and key = %s",
                (self.tenant, claim.key),
            )
            return await cursor.fetchone() or Figures(claim.cap_nano)

    def teardown(self) -> None:
        if hasattr(self, "recorder"):
            assert self.run(self.recorder.close()) == 0


@pytest.fixture
def machine(store_urls) -> Callable[[], None]:
    loop = asyncio.new_event_loop()
    store = Store(store_urls.url)
    loop.run_until_complete(store.open())
    LedgerMachine.loop, LedgerMachine.store = loop, store
    yield LedgerMachine
    loop.run_until_complete(store.close())
    loop.close()


def test_money_adds_up_whatever_happens(machine) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
