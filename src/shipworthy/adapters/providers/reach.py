"""The providers of the snapshot in force, reached: connections outlive a reload unless their provider changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec import Struct

from shipworthy.model.route import Provider
from shipworthy.ports import Upstream

RETIRE_S = 3_660.0
"""How long the connections of a provider that a reload dropped serve the requests that began before: an hour is the longest
total timeout that a manifest may state."""


class ModelServer(Struct, frozen=True):
    """Where a supervised local model answers."""

    base_url: str
    api_key: str
    default_stop: tuple[str, ...]

    def __repr__(self) -> str:  # the key is a secret
        return f"ModelServer({self.base_url})"


class Reached(Struct, frozen=True):
    """A provider, where its child answers if it has one, and the way to it."""

    provider: Provider
    server: ModelServer | None
    upstream: Upstream


class Reach:
    """``adopt`` and ``close`` belong to the loop that serves requests."""

    def __init__(self, build: Callable[[Provider, ModelServer | None], Upstream]) -> None:
        self._build = build
        self._reached: dict[str, Reached] = {}
        self._retiring: set[asyncio.Future[None]] = set()

    def adopt(self, providers: Mapping[str, Provider], servers: Mapping[str, ModelServer]) -> Mapping[str, Upstream]:
        """The way to every one of ``providers``, by name."""
        reached = {name: self._way(provider, servers.get(name)) for name, provider in providers.items()}
        for name, old in self._reached.items():
            if name not in reached or reached[name].upstream is not old.upstream:
                asyncio.get_running_loop().call_later(RETIRE_S, self._retire, old.upstream)
        self._reached = reached
        return {name: way.upstream for name, way in reached.items()}

    async def close(self) -> None:
        await asyncio.gather(*(way.upstream.close() for way in self._reached.values()), *self._retiring)

    def _way(self, provider: Provider, server: ModelServer | None) -> Reached:
        kept = self._reached.get(provider.name)
        if kept is not None and kept.provider == provider and kept.server == server:
            return kept
        return Reached(provider, server, self._build(provider, server))

    def _retire(self, upstream: Upstream) -> None:
        self._retiring.add(closing := asyncio.ensure_future(upstream.close()))
        closing.add_done_callback(self._retiring.discard)
