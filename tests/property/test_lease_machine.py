"""Leases keep the books, whatever happens to several workers: `charged + held + leased + suspended + free = cap`.

Requests, settlements, overruns, turns, recalls, reloads, crashes, sweeps and the passing of time, in any order and several
at once; the store away, or its answer lost, at any question. After each step every counter equals the sum of what is behind
it, no worker believes it has more than the store set aside for it, and nobody was admitted beyond a cap, a sliding minute's
limit or a limit of requests at once. In the end nothing is left over.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from functools import wraps

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.property.lease_world import NAMES, Exchange, MemoryGround, Worker, World
from tests.property.lease_world_store import PostgresGround

from shipworthy.adapters.store.pool import Store
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Outcome

KEYS = ("team=a", "team=a/use_case=b", "tenant")
# Few values that add up to one another: edges are met often.
CAPS = st.sampled_from([600, 2_000, 20_000, 10**6, 10**6])
AMOUNTS = st.sampled_from([0, 1, 49, 50, 100, 120])
CHARGES = st.sampled_from([0, 1, 50, 100, 120, 300])
TOKENS = st.sampled_from([0, 1, 19, 20, 40])
PATHS = st.sampled_from([("tenant",), KEYS, ("team=a", "tenant")])
FATES = st.lists(st.sampled_from(["ok", "ok", "ok", "away", "lost"]), max_size=4)
ANY = st.integers(0, 10_000)


def while_busy(does: Callable[..., None]) -> Callable[..., None]:
    """Does nothing when nothing is under way. No precondition: over PostgreSQL, which of several admissions came first
    differs from run to run, and what there is to choose from must not."""

    @wraps(does)
    def guarded(self: LeaseMachine, **chosen: object) -> None:
        if self.is_busy():
            does(self, **chosen)

    return guarded


class LeaseMachine(RuleBasedStateMachine):
    """One store, two to four workers, one tenant a run."""

    loop: asyncio.AbstractEventLoop
    drawn = 0  # from leases, in all runs

    def ground(self, world: World) -> object:
        return MemoryGround(lambda: world.at)

    @initialize(
        caps=st.tuples(CAPS, CAPS, CAPS),
        requests=st.sampled_from([0, 0, 10, 60, 300, 300]),
        tokens=st.sampled_from([0, 0, 300, 2_000, 9_000]),
        concurrent=st.sampled_from([0, 0, 0, 6, 100]),
        stricts=st.lists(st.booleans(), min_size=2, max_size=4),
        seed=ANY,
    )
    def begin(
        self, caps: tuple[int, ...], requests: int, tokens: int, concurrent: int, stricts: list[bool], seed: int
    ) -> None:
        name = f"leases-{next(NAMES)}"
        self.world = World(name, seed, KEYS, dict(zip(KEYS, caps, strict=True)), requests, tokens, concurrent)
        self.world.ground = self.ground(self.world)
        for strict in stricts:
            self.world.hire(strict=strict)

    def run(self, *acts, fates: list[str] = ()) -> list[object]:
        """All of them at once, until nothing is under way."""
        self.world.fates = deque(fates)

        async def play() -> list[object]:
            answers = await asyncio.gather(*acts, return_exceptions=True)
            await self.world.calm()
            return answers

        answers = self.loop.run_until_complete(play())
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, (Refusal, StoreUnavailable)):
                raise answer
        return answers

    def worker(self, choice: int) -> Worker:
        return self.world.workers[choice % len(self.world.workers)]

    def one(self, choice: int) -> Exchange:
        """Any of those under way: not the oldest most often, which small numbers would name."""
        return random.Random(choice).choice(self.world.under_way())

    def is_busy(self) -> bool:
        return bool(self.world.under_way())

    # ---------------------------------------------------------------------------------------- requests

    @rule(who=ANY, keys=PATHS, amount=AMOUNTS, tokens=TOKENS, fates=FATES)
    def reserve(self, who: int, keys: tuple[str, ...], amount: int, tokens: int, fates: list[str]) -> None:
        self.run(self.world.reserve(self.worker(who), keys, amount, tokens), fates=fates)

    @rule(
        requests=st.lists(st.tuples(ANY, PATHS, AMOUNTS, TOKENS), min_size=2, max_size=12),
        turning=st.lists(ANY, max_size=2),
        ending=st.lists(st.tuples(ANY, CHARGES, TOKENS), max_size=3),
        recalled=st.booleans(),
        fates=FATES,
    )
    def much_at_once(
        self,
        requests: list[tuple[int, tuple[str, ...], int, int]],
        turning: list[int],
        ending: list[tuple[int, int, int]],
        recalled: bool,
        fates: list[str],
    ) -> None:
        acts = [self.world.reserve(self.worker(who), keys, *sizes) for who, keys, *sizes in requests]
        acts += [worker.ledger.turn() for worker in {self.worker(who) for who in turning}]
        ended = {self.one(choice).op.id: sizes for choice, *sizes in ending} if self.is_busy() else {}
        acts += [self.world.settle(self.world.exchanges[of], *sizes, Outcome.SERVED) for of, sizes in ended.items()]
        if recalled:
            self.worker(len(requests)).ledger.recall()
        self.run(*acts, fates=fates)

    @rule(who=ANY, keys=PATHS, amount=AMOUNTS, requests=st.integers(4, 20))
    def a_path_gets_hot(self, who: int, keys: tuple[str, ...], amount: int, requests: int) -> None:
        for _ in range(requests):
            self.run(self.world.reserve(self.worker(who), keys, amount, 1))

    @rule(keys=PATHS, amount=AMOUNTS, charge=CHARGES, requests=st.integers(2, 8), fates=FATES)
    def a_busy_second(self, keys: tuple[str, ...], amount: int, charge: int, requests: int, fates: list[str]) -> None:
        """Every worker's requests come, are sent and end, and others stay; then the second is over."""
        for _ in range(requests):
            self.run(*(self.world.reserve(worker, keys, amount, 1) for worker in self.world.workers))
            self.run(*(self.world.settle(each, charge, 1, Outcome.SERVED) for each in self.world.under_way()[::2]))
        self.a_second_passes(fates)

    @rule(who=ANY, keys=PATHS, amount=AMOUNTS, after=st.integers(0, 12), fates=FATES)
    def a_client_leaves_while_it_waits(
        self, who: int, keys: tuple[str, ...], amount: int, after: int, fates: list[str]
    ) -> None:
        async def leave() -> None:
            asking = asyncio.ensure_future(self.world.reserve(self.worker(who), keys, amount, 1))
            for _ in range(after):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            if not asking.cancelled():
                asking.result()

        self.run(leave(), fates=fates)

    @rule(choice=ANY, fates=FATES)
    @while_busy
    def send(self, choice: int, fates: list[str]) -> None:
        self.run(self.world.send(self.one(choice)), fates=fates)

    @rule(skip=st.integers(1, 3))
    @while_busy
    def send_many(self, skip: int) -> None:
        self.run(*(self.world.send(each) for each in self.world.under_way()[::skip] if not each.sent))

    @rule(choice=ANY, amount=AMOUNTS, fates=FATES)
    @while_busy
    def raise_to(self, choice: int, amount: int, fates: list[str]) -> None:
        exchange = self.one(choice)
        hold = exchange.hold
        assert hold is not None

        async def raised() -> None:
            exchange.hold = await exchange.worker.ledger.raise_to(exchange.op, hold, amount + 60)

        self.run(raised(), fates=fates)

    @rule(amount=AMOUNTS)
    @while_busy
    def trim(self, amount: int) -> None:
        """Before it is sent; later it changes nothing."""
        for exchange in self.world.under_way():
            exchange.worker.ledger.trim(exchange.op, exchange.hold, amount)

    @rule(choice=ANY, amount=CHARGES, tokens=TOKENS, served=st.booleans(), fates=FATES)
    @while_busy
    def settle(self, choice: int, amount: int, tokens: int, served: bool, fates: list[str]) -> None:
        """For less, exactly, or more than was held; a refused one costs nothing."""
        outcome = Outcome.SERVED if served or self.one(choice).sent else Outcome.REFUSED
        amount, tokens = (amount, tokens) if outcome is Outcome.SERVED else (0, 0)
        self.run(self.world.settle(self.one(choice), amount, tokens, outcome), fates=fates)

    @rule(share=st.sampled_from([2, 3]), amount=CHARGES)
    @while_busy
    def many_end(self, share: int, amount: int) -> None:
        self.run(*(self.world.settle(each, amount, 1, Outcome.SERVED) for each in self.world.under_way()[::share]))

    # ---------------------------------------------------------------------------------------- workers

    @rule(who=ANY, fates=FATES)
    def turn(self, who: int, fates: list[str]) -> None:
        self.run(self.worker(who).ledger.turn(), fates=fates)

    @rule(fates=FATES)
    def a_second_passes(self, fates: list[str]) -> None:
        self.world.pass_s(1)
        self.run(*(worker.ledger.turn() for worker in self.world.workers), fates=fates)

    @rule(who=ANY, fates=FATES)
    def wanted_back(self, who: int, fates: list[str]) -> None:
        self.run(self.worker(who).ledger.turn(recalled={self.world.tenant}), fates=fates)

    @rule(key=st.sampled_from(KEYS), cap=st.sampled_from([0, 600, 2_000, 20_000, 10**6, 10**6]))
    def reload(self, key: str, cap: int) -> None:
        """A cap changes: every worker spends its old leases no more."""
        self.world.caps[key] = cap
        self.world.caps_max[key] = max(self.world.caps_max[key], cap)
        for worker in self.world.workers:
            worker.ledger.recall()
        self.run(*(worker.ledger.turn(recalled=set()) for worker in self.world.workers))

    @rule(who=ANY, twice=st.booleans())
    def the_writer_writes(self, who: int, twice: bool) -> None:
        self.worker(who).scribe.flush(twice=twice)

    @rule(who=ANY, strict=st.booleans())
    def a_worker_crashes(self, who: int, strict: bool) -> None:
        self.world.crash(self.worker(who))
        self.world.hire(strict=strict)

    @rule(who=ANY, half=st.booleans())
    def a_worker_is_believed_dead(self, who: int, half: bool) -> None:
        self.run(self.world.sleep(self.worker(who), half=half))

    @rule(seconds=st.sampled_from([0.1, 0.4, 3, 8.5, 11, 30, 61, 901]))
    def time_passes(self, seconds: float) -> None:
        """Past a worker's margin, past the lease's life, past everything; nobody turns meanwhile."""
        self.world.pass_s(seconds)

    @rule(told=st.booleans(), half=st.booleans())
    def somebody_sweeps(self, told: bool, half: bool) -> None:
        self.run(self.world.sweep(told=told, half=half))

    # ---------------------------------------------------------------------------------------- what is always true

    @invariant()
    def everything_adds_up(self) -> None:
        if hasattr(self, "world"):
            self.loop.run_until_complete(self.world.check())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.loop.run_until_complete(self.world.end())
            type(self).drawn += self.world.leased


class StoreLeaseMachine(LeaseMachine):
    """The same over PostgreSQL."""

    store: Store
    superuser_url: str

    def ground(self, world: World) -> PostgresGround:
        return PostgresGround(self.store, self.superuser_url, lambda: world.at)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "world"):
            self.world.ground.close()


def play(machine: type[LeaseMachine], examples: int, steps: int) -> None:
    machine.drawn = 0
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=[
                Phase.explicit,
                Phase.generate,
            ],  # shrinking a run of many workers takes minutes: ask for it by hand
        ),
    )
    assert machine.drawn > 2 * examples, "leases were hardly used: this test shows nothing"


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_leases_keep_the_books_whatever_happens(loop) -> None:
    LeaseMachine.loop = loop
    play(LeaseMachine, examples=150, steps=40)


def test_leases_in_postgresql_keep_the_books_whatever_happens(loop, store_urls) -> None:
    StoreLeaseMachine.loop, StoreLeaseMachine.superuser_url = loop, store_urls.superuser_url
    StoreLeaseMachine.store = Store(store_urls.url)
    loop.run_until_complete(StoreLeaseMachine.store.open())
    try:
        play(StoreLeaseMachine, examples=25, steps=30)
    finally:
        loop.run_until_complete(StoreLeaseMachine.store.close())
