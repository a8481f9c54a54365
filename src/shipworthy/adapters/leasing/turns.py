"""Turns: once a second, and when somebody wants them back, a worker's leases are reported, renewed, or given back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from shipworthy.adapters.leasing.path import NS, LeaseBounds, Path, Paths
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.lease import Purse, Turn
from shipworthy.model.observation import Failed, StoreDegraded
from shipworthy.model.op import Clock, Observe
from shipworthy.ports import LeaseStore


class Turns:
    """The turns of one worker's leases. ``run`` must be kept running."""

    def __init__(self, paths: Paths, store: LeaseStore, clock: Clock, observe: Observe, bounds: LeaseBounds) -> None:
        self._paths = paths
        self._store = store
        self._clock = clock
        self._observe = observe
        self._bounds = bounds
        self._woken = asyncio.Event()
        self._recalled: set[str] = set()
        self._away = False

    def until_ns(self) -> int:
        """Asked before the store is: until when what it answers may be spent."""
        return self._clock.monotonic_ns() + int((self._bounds.ttl_s - self._bounds.margin_s) * NS)

    def recall(self) -> None:
        """Every lease is spent no more, because what it was taken for may have changed; all that is free goes back now."""
        for path in self._paths:
            path.retire()
        self._woken.set()

    def wanted_back(self, tenant: str) -> None:
        """Somebody was refused because of leases of ``tenant`` ("" = of anyone): what is free goes back now."""
        self._recalled.add(tenant)
        self._woken.set()

    async def run(self) -> None:
        """Reports and renews every lease each second, and those that are wanted back when woken, until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._bounds.turn_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._woken.wait()
            try:
                if loop.time() >= due_s:
                    due_s = loop.time() + self._bounds.turn_s
                    await self.turn()
                else:
                    self._woken.clear()
                    recalled, self._recalled = self._recalled, set()
                    await self.turn(recalled=recalled)
                    await asyncio.sleep(self._bounds.recall_s)
            except Exception as bug:  # noqa: BLE001  # whatever it is, leases that are not renewed would all be lost
                self._observe(Failed.of("leases", bug))

    async def turn(self, recalled: set[str] | None = None) -> None:
        """One turn of every lease, or of those of ``recalled`` tenants (and of leases that are not spent any more)."""
        now_ns = self._clock.monotonic_ns()
        found: dict[str, list[tuple[Path, Purse, Turn]]] = defaultdict(list)
        for path in list(self._paths):
            mine = recalled is not None and (path.tenant in recalled or "" in recalled)
            if mine:
                path.near_until_ns = now_ns + int(self._bounds.near_s * NS)
            for purse in path.purses():
                if recalled is None or mine or purse.retired:
                    path.drawn = purse.drawn
                    found[path.tenant].append((path, purse, purse.turn(everything=mine)))
            if not path.purses():
                self._paths.forget_idle(path, now_ns)
        gate = asyncio.Semaphore(self._bounds.turns_tenants_max)

        async def one(tenant: str) -> None:
            async with gate:
                await self._turn(tenant, found[tenant])

        ended = await asyncio.gather(*map(one, found), return_exceptions=True)  # none goes on into the next turn
        for bug in filter(None, ended):
            raise bug

    async def _turn(self, tenant: str, mine: Sequence[tuple[Path, Purse, Turn]]) -> None:
        until_ns = self.until_ns()
        try:
            said = await self._store.turn(tenant, [turn for *_, turn in mine], self._bounds.ttl_s)
            self._away = False
        except BaseException as reason:  # also a cancel: nobody knows whether the store has heard of it
            for path, purse, _ in mine:
                purse.unheard()
                if path.purse is purse:
                    path.retire()
            if not isinstance(reason, StoreUnavailable):
                raise
            if not self._away:
                self._observe(StoreDegraded("leases", str(reason), len(mine)))
            self._away = True
            return
        answers = {answer.id: answer for answer in said}
        for path, purse, _ in mine:
            purse.turned(answers[purse.id], until_ns)
            if purse.retired and path.purse is purse:
                path.retire()
            path.forget_ended()
