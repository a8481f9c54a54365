"""Knows who is paused, from memory, and while the store answers never from knowledge that is more than 900 ms old.

The same bargain as with service keys (``key_cache``): every change of a pause raises one number in its transaction; a worker
asks for the number four times a second and reads the pauses again when it has changed. A notification only makes that happen
at once. When the number could not be had for 900 ms, a request asks itself. Where that fails too, what was known last is
used for as long as leases are spent without the store, and then the request is refused (``reserve.store_unavailable``): a
pause needs the store as well, so that in an outage there is none to learn of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from shipworthy.adapters.store.pauses import LOADED_MAX, Changed, Standing
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Grant
from shipworthy.model.observation import StoreDegraded
from shipworthy.model.op import Clock, Observe, Op
from shipworthy.model.pause import spender

NS_PER_MS = 1_000_000
UNKNOWN = 0
"""Before every number of a change."""


class PauseSource(Protocol):
    """Where pauses are looked up."""

    async def changed(self, known: int) -> Changed: ...


class PauseBounds(Struct, frozen=True, kw_only=True):
    """Every bound of the cache. ``poll_ms + look_ms`` stays below ``stale_ms``, and that below a second."""

    poll_ms: int = 250
    look_ms: int = 600  # one question to the store, waiting for a connection included
    stale_ms: int = 900
    outage_ms: int = 8_000  # how long what was known last is used when the store does not answer
    idle_ms: int = 5_000  # after so long without a request, it is asked less often:
    idle_poll_ms: int = 2_000  # so that a burst that begins on a slow store finds what was known last


class PauseCache:
    """Refuses who is paused. Its ``watch`` runs beside it for as long as it is used."""

    def __init__(self, source: PauseSource, clock: Clock, observe: Observe, bounds: PauseBounds | None = None) -> None:
        self._source = source
        self._clock = clock
        self._observe = observe
        self.bounds = bounds or PauseBounds()
        self._standing: Mapping[tuple[str, str, str], Standing] = {}
        self._version = UNKNOWN
        self._confirmed_ns = self._asked_ns = -(
            1 << 62
        )  # when the last question began that was answered; the last request
        self._looking: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._degraded = False

    async def check(self, op: Op, grant: Grant) -> None:
        """Raises Refusal reserve.paused, or reserve.store_unavailable when nobody can tell."""
        self._asked_ns = now_ns = self._clock.monotonic_ns()
        age_ms = (now_ns - self._confirmed_ns) // NS_PER_MS
        if age_ms > self.bounds.stale_ms and not (self._degraded and age_ms <= self.bounds.outage_ms):
            await self._ask_first(age_ms)
        if not self._standing:
            return
        tenant, principal = grant.tenant.name, spender(grant.principal)
        paused = self._standing.get((tenant, principal, ""))
        if paused is None and grant.session:
            paused = self._standing.get((tenant, principal, grant.session))
        if paused is not None:
            raise refusal(paused)

    async def _ask_first(self, age_ms: int) -> None:
        try:
            async with asyncio.timeout(self.bounds.look_ms / 1_000):
                await asyncio.shield(self._look())
        except (StoreUnavailable, TimeoutError) as away:
            if age_ms <= self.bounds.outage_ms:
                return
            raise Refusal(
                "reserve.store_unavailable", detail=f"pauses: {str(away) or 'timed out'}", retry_after_s=1
            ) from away

    def _look(self) -> asyncio.Task[None]:
        """One question at a time; who asks meanwhile waits for the same one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._asked())
            self._looking.add_done_callback(_seen)
        return self._looking

    async def _asked(self) -> None:
        async with asyncio.timeout(self.bounds.look_ms / 1_000):
            began_ns = self._clock.monotonic_ns()
            changed = await self._source.changed(self._version)
        if changed.standing is not None:
            self._standing = {(each.tenant, each.principal, each.session): each for each in changed.standing}
            self._version = changed.version
            self._say_too_many(changed.standing)
        self._confirmed_ns = began_ns

    def _say_too_many(self, standing: Sequence[Standing]) -> None:
        if len(standing) >= LOADED_MAX:
            self._observe(StoreDegraded("pauses", f"only the oldest {LOADED_MAX} are kept in mind: release some", 0))

    def wake(self, _: str = "") -> None:
        """A pause changed, or may have: asks now."""
        self._woken.set()

    async def watch(self) -> None:
        """Keeps the knowledge fresh, for ever; cancel it to end."""
        try:
            while True:
                await self._refresh()
                idle = self._clock.monotonic_ns() - self._asked_ns > self.bounds.idle_ms * NS_PER_MS
                with suppress(TimeoutError):
                    async with asyncio.timeout((self.bounds.idle_poll_ms if idle else self.bounds.poll_ms) / 1_000):
                        await self._woken.wait()
                self._woken.clear()
        finally:
            if self._looking is not None:
                self._looking.cancel()

    async def _refresh(self) -> None:
        try:
            await asyncio.shield(self._look())
            self._degraded = False
        except (StoreUnavailable, TimeoutError) as away:
            if not self._degraded:  # said once an outage, not four times a second
                self._observe(StoreDegraded("pauses", str(away) or "timed out", 0))
            self._degraded = True


def refusal(paused: Standing) -> Refusal:
    """What the client is told: since when and why in general; the figures are the administrator's."""
    return Refusal(
        "reserve.paused",
        detail=f"session {paused.session} of {paused.principal}" if paused.session else paused.principal,
        what="session" if paused.session else "principal",
        since=_moment(paused.at),
        why="it spent far more than is normal" if paused.watched else "an administrator paused it",
    )


def _moment(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")


def _seen(done: asyncio.Task[None]) -> None:
    if not done.cancelled():
        done.exception()  # those who waited may all have left
