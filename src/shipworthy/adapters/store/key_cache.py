"""Verifies service keys from memory, and never from knowledge that is more than 900 ms old.

How can a revoked key be refused everywhere within a second, without a look-up a request and without trusting a
notification to arrive? Every change of a key raises one number in the same transaction. An entry is good while that number
is still the entry's own, and the number is asked for four times a second; a notification only makes that happen at once.
When the number cannot be had for 900 ms, no entry counts any more: each request looks its key up itself, and is refused
(``identify.keys_unavailable``) where that fails too.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from shipworthy.adapters.store.keys import Looked
from shipworthy.model import service_key
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Principal
from shipworthy.model.observation import StoreDegraded
from shipworthy.model.op import Clock, Observe, Op
from shipworthy.ports import ServiceKey

NS_PER_MS = 1_000_000


class KeySource(Protocol):
    """Where keys are looked up."""

    async def look(self, key_id: str) -> Looked: ...
    async def version(self) -> int: ...


class KeyBounds(Struct, frozen=True, kw_only=True):
    """Every bound of the cache. ``poll_ms + look_ms`` stays below ``stale_ms``, and that below a second."""

    poll_ms: int = 250
    look_ms: int = 600  # one question to the store, waiting for a connection included
    stale_ms: int = 900
    idle_ms: int = 5_000  # after so long without a request, the number is not asked for
    known_max: int = 10_000
    unknown_max: int = 10_000  # ids that do not exist: apart, so that guesses push no real key out
    lookups_max: int = 4  # at once
    waiting_max: int = 256  # look-ups that may wait for their turn


class Entry(Struct, frozen=True):
    """What a look-up found, and when it began."""

    looked: Looked
    began_ns: int


class KeyCache:
    """A KeyVerifier. Its ``watch`` runs beside it for as long as it is used."""

    def __init__(
        self, source: KeySource, pepper: bytes, clock: Clock, observe: Observe, bounds: KeyBounds | None = None
    ) -> None:
        self._source = source
        self._pepper = pepper
        self._clock = clock
        self._observe = observe
        self.bounds = bounds or KeyBounds()
        self._known: OrderedDict[str, Entry] = OrderedDict()
        self._unknown: OrderedDict[str, Entry] = OrderedDict()
        self._looking: dict[str, asyncio.Task[Entry]] = {}
        self._turn = asyncio.Semaphore(self.bounds.lookups_max)
        self._woken = asyncio.Event()
        self._version = 0
        self._confirmed_ns = -(1 << 62)  # when the last question began that ``_version`` answers
        self._asked_ns = -(1 << 62)

    async def verify(self, op: Op, key: str) -> Principal:
        secret = service_key.parse(key)
        if secret is None:
            raise Refusal("identify.malformed", detail="not a whole service key: wrong length, letters or checksum")
        found = (await self._entry(secret.id)).looked.key
        proof = secret.proof(self._pepper)
        if not hmac.compare_digest(proof, found.secret_hmac if found else bytes(len(proof))) or found is None:
            raise Refusal("identify.key_unknown", detail=f"id {secret.id}")
        if found.revoked_at is not None:
            raise Refusal("identify.key_revoked", detail=f"id {secret.id}, {found.revoked_at.isoformat()}")
        return _principal(found, op)

    # ------------------------------------------------------------------------------------------ what is known

    async def _entry(self, key_id: str) -> Entry:
        self._asked_ns = now_ns = self._clock.monotonic_ns()
        for cache in (self._known, self._unknown):
            entry = cache.get(key_id)
            if entry is not None and self._holds(entry, now_ns):
                cache.move_to_end(key_id)
                return entry
        try:
            entry = await asyncio.shield(self._looking.get(key_id) or self._look(key_id))
        except (StoreUnavailable, TimeoutError) as away:
            raise Refusal("identify.keys_unavailable", detail=str(away) or "timed out", retry_after_s=1) from away
        if not self._holds(entry, self._clock.monotonic_ns()):
            raise Refusal("identify.keys_unavailable", detail="the answer came too late", retry_after_s=1)
        return entry

    def _holds(self, entry: Entry, now_ns: int) -> bool:
        """Whether nothing can have changed since, but in the last ``stale_ms``."""
        if entry.looked.version < self._version:
            return False
        return now_ns - max(entry.began_ns, self._confirmed_ns) <= self.bounds.stale_ms * NS_PER_MS

    def _look(self, key_id: str) -> asyncio.Task[Entry]:
        """One look-up an id at a time; who asks meanwhile waits for the same one."""
        if len(self._looking) >= self.bounds.waiting_max:
            raise Refusal("identify.keys_unavailable", detail="too many look-ups wait", retry_after_s=1)
        task = self._looking[key_id] = asyncio.ensure_future(self._asked(key_id))
        task.add_done_callback(lambda done: self._forget_task(key_id, done))
        return task

    def _forget_task(self, key_id: str, done: asyncio.Task[Entry]) -> None:
        del self._looking[key_id]
        if not done.cancelled():
            done.exception()  # seen: those who waited may all have left

    async def _asked(self, key_id: str) -> Entry:
        async with asyncio.timeout(self.bounds.look_ms / 1_000), self._turn:
            began_ns = self._clock.monotonic_ns()
            entry = Entry(await self._source.look(key_id), began_ns)
        self._confirm(entry.looked.version, began_ns)
        if entry.looked.key is None:
            self._known.pop(key_id, None)
            _keep(self._unknown, key_id, entry, self.bounds.unknown_max)
        else:
            self._unknown.pop(key_id, None)
            _keep(self._known, key_id, entry, self.bounds.known_max)
        return entry

    def _confirm(self, version: int, began_ns: int) -> None:
        """The store answered: its number was ``version`` at some time after ``began_ns``."""
        if version > self._version:
            self._version, self._confirmed_ns = version, began_ns
        elif version == self._version:
            self._confirmed_ns = max(self._confirmed_ns, began_ns)
        elif began_ns > self._confirmed_ns:  # the number went back: the store was restored from a backup
            self._known.clear()
            self._unknown.clear()
            self._version, self._confirmed_ns = version, began_ns

    # ------------------------------------------------------------------------------------------ what keeps it known

    def wake(self, _: str = "") -> None:
        """A key changed, or may have: asks for the number now."""
        self._woken.set()

    async def watch(self) -> None:
        """Asks for the number of the last change, for ever; cancel it to end."""
        degraded = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.bounds.poll_ms / 1_000):
                    await self._woken.wait()
            self._woken.clear()
            began_ns = self._clock.monotonic_ns()
            if began_ns - self._asked_ns > self.bounds.idle_ms * NS_PER_MS:
                continue
            try:
                async with asyncio.timeout(self.bounds.look_ms / 1_000):
                    self._confirm(await self._source.version(), began_ns)
                degraded = False
            except (StoreUnavailable, TimeoutError) as away:
                if not degraded:  # said once an outage, not four times a second
                    self._observe(StoreDegraded("service keys", str(away) or "timed out", len(self._looking)))
                degraded = True


def _keep(cache: OrderedDict[str, Entry], key_id: str, entry: Entry, most: int) -> None:
    cache[key_id] = entry
    cache.move_to_end(key_id)
    if len(cache) > most:
        cache.popitem(last=False)


def _principal(key: ServiceKey, op: Op) -> Principal:
    """A service, named by its key's name: a key that replaces another one keeps its budgets."""
    expires_at = key.expires_at.timestamp() if key.expires_at is not None else 0.0
    if expires_at and op.clock.unix_ns() >= expires_at * 1e9:
        raise Refusal("identify.expired", detail=f"service key {key.id} expired at {key.expires_at}")
    return Principal(
        tenant=key.tenant,
        subject=f"service:{key.name}",
        kind="service",
        key_id=key.id,
        key_role=key.role,
        key_use_cases=key.use_cases,
        expires_at=expires_at,
    )
