"""Keeps one issuer's keys: fetched ahead of use, sought once when a token names an unknown one, served while it is away.

What if someone sends tokens with random key ids? Each may cause at most one fetch per ``seek_interval_s``, whatever their
number; only requests with an unknown key wait for it, and only for the fetch that is under way.
What if the issuer is down? The last keys serve until ``stale_s`` after they were fetched, then nothing is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from shipworthy.adapters.identity.fetching import FetchFailed
from shipworthy.adapters.identity.keys import KeySet
from shipworthy.adapters.identity.settings import KeyTimes
from shipworthy.model.observation import IssuerDegraded
from shipworthy.model.op import Clock, Observe

WAITERS_MAX = 1_000
RETRY_S_MIN = 1.0
JITTER = 0.1
NEVER = -(2**62)


class KeySource(Protocol):
    """Where a verifier finds the keys of one issuer."""

    keys: KeySet | None
    good_until_ns: int  # monotonic; past it ``keys`` count for nothing
    reason: str  # why the last fetch failed, "" when it did not

    async def seek(self) -> None:
        """Brings ``keys`` up to date if that is allowed now; returns at once if it is not."""


class FixedKeys:
    """Keys that are known in this process: the development issuer's, or a test's."""

    def __init__(self, keys: KeySet) -> None:
        self.keys: KeySet | None = keys
        self.good_until_ns = 2**62
        self.reason = ""

    async def seek(self) -> None:
        """Nothing newer can be found."""


class FetchedKeys:
    """Keys that an issuer publishes. ``run`` refreshes them in the background; ``seek`` may be called at any time."""

    def __init__(
        self, issuer: str, fetch: Callable[[], Awaitable[KeySet]], clock: Clock, observe: Observe, times: KeyTimes
    ) -> None:
        self.keys: KeySet | None = None
        self.good_until_ns = 0
        self.reason = "not fetched yet"
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._observe = observe
        self._times = times
        self._fetched_ns = NEVER
        self._sought_ns = NEVER
        self._flight: asyncio.Task[None] | None = None
        self._waiters = 0

    async def seek(self) -> None:
        """One fetch for all who ask at once, and none within the interval of the last one that was asked for."""
        if self._flight is None:
            now = self._clock.monotonic_ns()
            if now - self._sought_ns < self._times.seek_interval_s * 1e9:
                return
            self._sought_ns = now
        if self._waiters >= WAITERS_MAX:
            return
        self._waiters += 1
        try:
            await self._refresh()
        finally:
            self._waiters -= 1

    async def run(self) -> None:
        """Refreshes until cancelled; sooner after a failure, so that an outage ends as early as the issuer's own."""
        failures = 0
        while True:
            await self._refresh()
            failures = failures + 1 if self.reason else 0
            pause = self._times.refresh_s
            if failures:
                pause = min(pause, RETRY_S_MIN * 2 ** min(failures, 10))
            await asyncio.sleep(pause * (1 + JITTER * random.random()))  # noqa: S311  # spreads load, guards nothing

    async def aclose(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flight

    async def _refresh(self) -> None:
        """Joins the fetch under way or starts one. A waiter that is cancelled does not take the fetch with it."""
        if self._flight is None:
            self._flight = asyncio.ensure_future(self._take())
            self._flight.add_done_callback(self._landed)
        await asyncio.shield(self._flight)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None

    async def _take(self) -> None:
        """One fetch. What is trusted changes only when it succeeds."""
        try:
            fetched = await self._fetch()
        except FetchFailed as failed:
            self.reason = str(failed)
            self._say(self.reason)
            return
        except Exception as unforeseen:  # noqa: BLE001  # whatever an issuer's answer provokes, the last keys serve on
            self.reason = f"unforeseen: {unforeseen!r}"
            self._say(self.reason)
            return
        now = self._clock.monotonic_ns()
        self.reason = ""
        self._fetched_ns = now
        self.good_until_ns = now + int(self._times.stale_s * 1e9)
        if self.keys is None or not self.keys.trusts_the_same(fetched):
            self.keys = fetched  # a new object: every verdict that rests on the old one is void
            if not fetched.keys:
                self._say("it publishes no usable key; " + "; ".join(fetched.left))

    def _say(self, reason: str) -> None:
        age_ns = self._clock.monotonic_ns() - self._fetched_ns if self.keys is not None else 0
        self._observe(IssuerDegraded(self._issuer, reason, round(age_ns / 1e9, 3)))
