"""Reservations that wait for the store, and those that have their answer from another's question."""

from __future__ import annotations

import asyncio

import pytest

from shipworthy.adapters.store.queue import Queue
from shipworthy.adapters.store.verdict import Verdict
from shipworthy.kit.builders import a_claim, an_estimate
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.ledger import Claim

TEAM, TENANT = a_claim("team=a", 1_000), a_claim("tenant", 5_000)
BOTH = (TEAM, TENANT)


def no(claim: Claim, reason: str = "budget_exhausted") -> Verdict:
    nothing = dict.fromkeys(
        ("retry_after_s", "holds_only", "limit_requests", "remaining_requests", "reset_requests_s", "limit_tokens",
         "remaining_tokens", "reset_tokens_s")
    )  # fmt: skip
    return Verdict(reason=reason, key=claim.key, period=claim.period, **nothing)


def yes() -> Verdict:
    return Verdict(*([None] * 11))


class AStore:
    """Answers in the order it is asked, each when told to; counts."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked = 0
        self.go = asyncio.Event()

    async def __call__(self) -> Verdict:
        self.asked += 1
        await self.go.wait()
        return self.verdict


async def several(queue: Queue, store: AStore, asks: list[tuple[tuple[Claim, ...], int]]) -> list[Verdict]:
    tasks = [asyncio.create_task(queue.ask("acme", claims, an_estimate(amount), store)) for claims, amount in asks]
    await asyncio.sleep(0.01)
    store.go.set()
    return list(await asyncio.gather(*tasks))


def test_who_waited_while_as_little_was_refused_does_not_ask() -> None:
    async def scene() -> None:
        store = AStore(no(TEAM))
        said = await several(Queue(1, 100, 2.0), store, [(BOTH, 10)] * 50)
        # the first began before the others came, the second answers all
        assert (store.asked, {verdict.reason for verdict in said}) == (2, {"budget_exhausted"})

    asyncio.run(scene())


def test_who_asks_for_less_or_at_another_level_asks_itself() -> None:
    async def scene() -> None:
        store = AStore(no(TEAM))
        await several(Queue(1, 100, 2.0), store, [(BOTH, 10), (BOTH, 10), (BOTH, 9), (BOTH, 9), ((TENANT,), 10)])
        assert store.asked == 4  # one of two nines has the other's answer

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("reason", "asks"), [("requests_limit", 2), ("concurrent_limit", 2), ("tokens_limit", 2), ("budget_exhausted", 2)]
)
def test_each_kind_of_refusal_is_shared(reason: str, asks: int) -> None:
    async def scene() -> None:
        store = AStore(no(TENANT, reason))
        await several(Queue(1, 100, 2.0), store, [(BOTH, 10)] * 9)
        assert store.asked == asks

    asyncio.run(scene())


def test_an_old_refusal_is_nobodys_answer() -> None:
    async def scene() -> None:
        queue, store = Queue(1, 100, 2.0), AStore(no(TEAM))
        store.go.set()
        for _ in range(3):
            await queue.ask("acme", BOTH, an_estimate(10), store)
        assert store.asked == 3

    asyncio.run(scene())


def test_another_tenants_refusal_and_an_admission_are_not_shared() -> None:
    async def scene() -> None:
        queue, store = Queue(1, 100, 2.0), AStore(no(TEAM))
        first = [asyncio.create_task(queue.ask(name, BOTH, an_estimate(10), store)) for name in ("acme", "umbra")]
        await asyncio.sleep(0.01)
        store.go.set()
        await asyncio.gather(*first)
        assert store.asked == 2
        admitting = AStore(yes())
        await several(queue, admitting, [(BOTH, 10)] * 5)
        assert admitting.asked == 5

    asyncio.run(scene())


def test_the_queue_is_bounded_in_length_and_in_time() -> None:
    async def scene() -> None:
        queue, store = Queue(1, 3, 0.05), AStore(no(TEAM))
        tasks = [asyncio.create_task(queue.ask("acme", BOTH, an_estimate(10), store)) for _ in range(6)]
        await asyncio.sleep(0)
        said = await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) for each in said)
        assert sorted("reserve_queue" in str(each) for each in said) == [True] * 5
        store.go.set()
        assert (await tasks[0]).reason == "budget_exhausted"
        assert (await queue.ask("acme", BOTH, an_estimate(10), store)).reason == "budget_exhausted"  # no place is lost

    asyncio.run(scene())


def test_one_that_leaves_while_it_waits_gives_its_place_back() -> None:
    async def scene() -> None:
        queue, store = Queue(1, 2, 2.0), AStore(no(TEAM))
        tasks = [asyncio.create_task(queue.ask("acme", BOTH, an_estimate(10), store)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[0].cancel()
        await asyncio.sleep(0)
        store.go.set()
        assert (await tasks[2]).reason == "budget_exhausted"

    asyncio.run(scene())
