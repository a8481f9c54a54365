"""A provider's own limits: exact over workers that share a store, whatever each of them has on lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from shipworthy.adapters.leasing.ledger import LeasedLedger
from shipworthy.adapters.leasing.path import LeaseBounds
from shipworthy.adapters.leasing.quotas import ProviderQuotas
from shipworthy.adapters.store.ledger import PostgresLedger
from shipworthy.adapters.store.pool import Store
from shipworthy.kit.builders import an_op
from shipworthy.kit.calls import a_provider
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.model.ledger import Hold
from shipworthy.model.op import SystemClock
from shipworthy.model.route import Provider, Quota, Timeouts

WORKERS = 3


class Fleet:
    """Workers of their own leases over one store."""

    def __init__(self, store: Store) -> None:
        self.ledgers = [
            LeasedLedger(
                PostgresLedger(store, f"worker-{n}"), SystemClock(), lambda _: None, lambda: True, lambda: WORKERS,
                LeaseBounds(turn_s=0.2),
            )
            for n in range(WORKERS)
        ]  # fmt: skip
        self.full: set[tuple[FailureKind, bool, bool]] = set()
        self.quotas = [ProviderQuotas(ledger) for ledger in self.ledgers]

    async def take(self, worker: int, provider: Provider, tokens: int = 10) -> Hold | None:
        """None = the provider's limit is reached."""
        try:
            return await self.quotas[worker % WORKERS].take(an_op(), provider, tokens)
        except ProviderFailure as full:
            self.full.add((full.kind, full.sent, "provider acme" in full.detail))
            return None


@pytest.fixture
def play(fresh_store) -> Callable[[Callable[[Fleet], Awaitable[None]]], None]:
    def run(scene: Callable[[Fleet], Awaitable[None]]) -> None:
        async def act() -> None:
            async with Store(fresh_store.url) as store:
                fleet = Fleet(store)
                turning = [asyncio.create_task(ledger.run()) for ledger in fleet.ledgers]
                try:
                    await scene(fleet)
                finally:
                    for task in turning:
                        task.cancel()
                    await asyncio.gather(*turning, return_exceptions=True)

        asyncio.run(act())

    return run


def acme(**limits: int) -> Provider:
    return replace(a_provider("x", None, Timeouts()), name="acme", limits=Quota(**limits))


def test_requests_are_exact_over_workers(play) -> None:
    async def scene(fleet: Fleet) -> None:
        provider = acme(requests_per_min=40)
        taken = [await asyncio.gather(*(fleet.take(n, provider) for n in range(30))) for _ in range(3)]
        admitted = sum(hold is not None for round in taken for hold in round)
        assert 38 <= admitted <= 40
        assert fleet.full == {(FailureKind.CAPACITY, False, True)}

    play(scene)


def test_tokens_are_corrected_when_an_attempt_has_ended(play) -> None:
    """Ceilings fill the window; what was not used leaves room at once."""

    async def scene(fleet: Fleet) -> None:
        provider = acme(tokens_per_min=1_000)
        first = [await fleet.take(0, provider, 500), await fleet.take(0, provider, 500)]
        assert all(first)
        assert await fleet.take(1, provider, 500) is None
        for hold in first:
            assert hold is not None
            fleet.quotas[0].used(hold, 100, sent=True)
        await asyncio.sleep(0.7)
        assert await fleet.take(1, provider, 500) is not None
        assert await fleet.take(1, provider, 500) is None

    play(scene)


def test_what_was_not_sent_does_not_count(play) -> None:
    async def scene(fleet: Fleet) -> None:
        provider = acme(requests_per_min=1)
        for _ in range(3):
            hold = await fleet.take(0, provider)
            assert hold is not None
            fleet.quotas[0].used(hold, 0, sent=False)
        assert await fleet.take(0, provider) is not None
        await asyncio.sleep(0.3)
        assert await fleet.take(1, provider) is None

    play(scene)


def test_a_provider_without_limits_asks_nobody(play) -> None:
    async def scene(fleet: Fleet) -> None:
        provider = replace(acme(), limits=None)
        assert await fleet.quotas[0].take(an_op(), provider, 10) is None

    play(scene)
