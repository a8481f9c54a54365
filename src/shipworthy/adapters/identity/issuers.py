"""The issuers of a running process: their keys outlive a reload, their trust does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from shipworthy.adapters.identity.fetching import Get, fetch_keys
from shipworthy.adapters.identity.settings import IdentitySettings, IssuerSettings, KeyTimes
from shipworthy.adapters.identity.source import FetchedKeys, FixedKeys, KeySource
from shipworthy.adapters.identity.verifier import JwtVerifier
from shipworthy.model.op import Clock, Observe

if TYPE_CHECKING:
    from shipworthy.adapters.identity.fetcher import Fetcher

TIMES = KeyTimes()
FIRST_KEYS_WAIT_S = 5.0


class Issuers:
    """Makes a verifier for each snapshot, and keeps the keys of every issuer that the newest one names fresh.

    ``adopt`` and ``aclose`` belong to the loop that serves requests.
    """

    def __init__(self, clock: Clock, observe: Observe, times: KeyTimes = TIMES, get: Get | None = None) -> None:
        self._clock = clock
        self._observe = observe
        self._times = times
        self._fetcher: Fetcher | None = None
        self._get: Get = get or self._fetched
        self._kept: dict[tuple[str, str], FetchedKeys] = {}
        self._refreshing: dict[tuple[str, str], asyncio.Task[None]] = {}

    def adopt(self, settings: IdentitySettings, known: Sequence[tuple[IssuerSettings, FixedKeys]] = ()) -> JwtVerifier:
        """The verifier of a new snapshot. ``known`` are issuers of this process itself, such as the development issuer.

        Issuers that the snapshot no longer names are forgotten; requests that began under the old one end under it.
        """
        everyone = IdentitySettings(  # raises before anything is forgotten
            issuers=settings.issuers + tuple(issuer for issuer, _ in known),
            operator_groups=settings.operator_groups,
            tenant_claim_optional=settings.tenant_claim_optional,
        )
        sources: dict[str, KeySource] = {issuer.issuer: keys for issuer, keys in known}
        named = {(issuer.issuer, issuer.jwks_uri): issuer for issuer in settings.issuers}
        for address, issuer in named.items():
            sources[issuer.issuer] = self._keys_of(address, issuer)
        for address in self._kept.keys() - named.keys():
            self._forget(address)
        return JwtVerifier(everyone, sources)

    async def first_keys(self) -> tuple[str, ...]:
        """Waits, boundedly, for the first keys of every issuer; names those that have none yet and why."""
        seeking = [asyncio.ensure_future(keys.seek()) for keys in self._kept.values() if keys.keys is None]
        if seeking:
            await asyncio.wait(seeking, timeout=FIRST_KEYS_WAIT_S)
        return tuple(f"{issuer}: {keys.reason}" for (issuer, _), keys in self._kept.items() if keys.keys is None)

    def degraded(self) -> tuple[str, ...]:
        """The issuers whose keys come from the cache, for readiness: it says `degraded`, not `down`."""
        return tuple(f"{issuer}: {keys.reason}" for (issuer, _), keys in self._kept.items() if keys.reason)

    async def aclose(self) -> None:
        """Ends every refresh and closes the connections."""
        ending = list(self._refreshing.values())
        kept = list(self._kept.values())
        for address in list(self._kept):
            self._forget(address)
        for keys in kept:
            await keys.aclose()
        for refreshing in ending:
            with contextlib.suppress(asyncio.CancelledError):
                await refreshing
        if self._fetcher is not None:
            await self._fetcher.aclose()

    async def _fetched(self, url: str) -> bytes:
        if self._fetcher is None:
            fetcher = await asyncio.to_thread(_fetcher, self._times.fetch_timeout_s)
            self._fetcher = self._fetcher or fetcher  # nothing is open in one that was never used
        return await self._fetcher.get(url)

    def _keys_of(self, address: tuple[str, str], issuer: IssuerSettings) -> FetchedKeys:
        if address not in self._kept:
            fetch = partial(fetch_keys, self._get, issuer)
            keys = FetchedKeys(issuer.issuer, fetch, self._clock, self._observe, self._times)
            self._kept[address] = keys
            self._refreshing[address] = asyncio.ensure_future(keys.run())
        return self._kept[address]

    def _forget(self, address: tuple[str, str]) -> None:
        del self._kept[address]
        self._refreshing.pop(address).cancel()


def _fetcher(timeout_s: float) -> Fetcher:
    """In a thread: loading its library would hold the loop up."""
    from shipworthy.adapters.identity.fetcher import Fetcher

    return Fetcher(timeout_s)
