"""Where reservations wait for their turn at the store, and who need not ask any more.

Near an exhausted cap every request asks the store, and almost all hear no. While some ask, the others wait here, in the
order they came. Who waited while the store refused as little at one of its levels has its answer: it is the store's word,
given to a question that began after it came, so that nobody is refused because of what was true before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from shipworthy.adapters.store.verdict import Verdict
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.ledger import Claim, Estimate

REFUSED_MAX = 4_096
"""Levels whose last refusal is remembered."""

Level = tuple[str, Claim, str]
"""Tenant, claim, and for what the store refused."""


class Refused(Struct, frozen=True, gc=False):
    """A refusal: when its question began, how much there was no room for, and what the store said."""

    began_ns: int
    amount: int
    verdict: Verdict


class Queue:
    """``asking_max`` ask at once; at most ``waiting_max`` wait, each for ``wait_s``."""

    def __init__(self, asking_max: int, waiting_max: int, wait_s: float) -> None:
        self._turn = asyncio.Semaphore(asking_max)
        self._waiting = 0
        self._waiting_max = waiting_max
        self._wait_s = wait_s
        self._refused: dict[Level, Refused] = {}

    async def ask(
        self, tenant: str, claims: Sequence[Claim], estimate: Estimate, question: Callable[[], Awaitable[Verdict]]
    ) -> Verdict:
        """The store's verdict on ``claims``: on this request, or on one that asked for no more. Raises StoreUnavailable."""
        came_ns = time.monotonic_ns()
        async with self._my_turn():
            known = self._known(tenant, claims, estimate, came_ns)
            if known is not None:
                return known
            began_ns = time.monotonic_ns()
            verdict = await question()
        if verdict.reason is not None:
            self._keep(tenant, claims, came_ns, Refused(began_ns, _amount(verdict.reason, estimate), verdict))
        return verdict

    @asynccontextmanager
    async def _my_turn(self) -> AsyncGenerator[None]:
        if self._waiting >= self._waiting_max:
            raise StoreUnavailable(f"store.reserve_queue: {self._waiting_max} reservations wait for the store already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"store.reserve_queue: too many reserve for the store to answer (waited {self._wait_s:g} s)"
            ) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()

    def _known(self, tenant: str, claims: Sequence[Claim], estimate: Estimate, came_ns: int) -> Verdict | None:
        if not self._refused:
            return None
        for claim in claims:
            for reason in _AMOUNTS:
                refused = self._refused.get((tenant, claim, reason))
                if refused is not None and refused.began_ns >= came_ns and _amount(reason, estimate) >= refused.amount:
                    return refused.verdict
        return None

    def _keep(self, tenant: str, claims: Sequence[Claim], came_ns: int, refused: Refused) -> None:
        verdict = refused.verdict
        for claim in claims:
            if claim.key == verdict.key and verdict.reason is not None and verdict.period in (None, "", claim.period):
                level = (tenant, claim, verdict.reason)
                before = self._refused.get(level)
                if before is not None and before.began_ns >= came_ns and before.amount < refused.amount:
                    continue  # asked for at the same time, and less was refused
                if before is None and len(self._refused) >= REFUSED_MAX:
                    self._refused.clear()
                self._refused[level] = refused


_AMOUNTS: dict[str, Callable[[Estimate], int]] = {
    "budget_exhausted": lambda estimate: estimate.amount_nano,
    "requests_limit": lambda _: 1,
    "tokens_limit": lambda estimate: estimate.tokens,
    "concurrent_limit": lambda _: 1,
}
"""How much a request asks for, by what the store refuses for."""


def _amount(reason: str, estimate: Estimate) -> int:
    return _AMOUNTS[reason](estimate)
