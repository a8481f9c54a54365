"""What a worker knows of its paths: the levels that one kind of request counts against, and its leases there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from msgspec import Struct

from shipworthy.model.lease import Purse
from shipworthy.model.ledger import Claim

NS = 1_000_000_000


class LeaseBounds(Struct, frozen=True):
    """Every bound of a worker's leases."""

    ttl_s: float = 10.0  # after which the store takes a lease that was not renewed for a dead worker's
    margin_s: float = 2.0  # so much earlier the worker stops spending it
    turn_s: float = 1.0  # how often leases are reported and renewed
    recall_s: float = 0.02  # at least between two times that leases are wanted back
    hot_s: float = 1.0  # a path gets a lease when its last request is not longer ago
    near_s: float = 0.25  # after a lease was not to be had: how long the path reserves directly before it asks again
    share_min: int = 8  # requests a lease is asked for at first; later two turns' worth as well
    share_max: int = 4_096
    paths_max: int = 10_000  # beyond, requests of further paths are reserved directly
    path_idle_s: float = 60.0  # a path that was not used for so long is forgotten
    hold_s: float = 900.0  # an intent's life; a request with a later deadline gets that and a minute
    waits_max: int = 8  # how often a request waits for a lease that others used up
    turns_tenants_max: int = 8  # tenants whose turns may be under way at once


class Path:
    """``purse`` is the lease that is spent now, ``draining`` are those whose last exchanges are under way."""

    __slots__ = (
        "asking", "bounded", "claims", "draining", "drawn", "last_ns", "near_until_ns", "purse", "refilling", "tenant",
        "waiting",
    )  # fmt: skip

    def __init__(self, tenant: str, claims: Sequence[Claim]) -> None:
        self.tenant = tenant
        self.claims = tuple(claims)
        self.bounded = any(c.cap_nano >= 0 or c.requests_per_min or c.tokens_per_min or c.concurrent for c in claims)
        self.purse: Purse | None = None
        self.draining: list[Purse] = []
        self.last_ns = 0
        self.near_until_ns = 0
        self.drawn = 0  # requests in the turn before this one
        self.waiting = 0
        self.asking: asyncio.Future[None] | None = None
        self.refilling = False

    def is_hot(self, now_ns: int, hot_ns: int) -> bool:
        """Whether requests come fast enough for a lease to spare round trips."""
        return bool(self.last_ns) and (now_ns - self.last_ns <= hot_ns or self.waiting > 0)

    def pace(self) -> int:
        """Requests a turn, lately."""
        return max(self.drawn, self.purse.drawn if self.purse is not None else 0)

    def retire(self) -> None:
        """The lease is spent no more; the next request that needs one gets another."""
        if self.purse is not None:
            self.purse.retired = True
            self.draining.append(self.purse)
            self.purse = None

    def spend(self, purse: Purse) -> None:
        """From now on this one, unless it was recalled while it was asked for."""
        if purse.retired:
            self.doubt(purse)
        elif self.purse is not purse:
            self.retire()
            self.purse = purse

    def doubt(self, purse: Purse) -> None:
        """The store may have added to the lease: it is spent no more, so that it is given back as a whole."""
        if self.purse is purse:
            self.retire()
        elif purse not in self.draining:
            purse.retired = True
            self.draining.append(purse)

    def purses(self) -> list[Purse]:
        """All that is to be reported."""
        return [*self.draining, self.purse] if self.purse is not None else list(self.draining)

    def forget_ended(self) -> None:
        """Leases that the store has ended are gone."""
        if self.purse is not None and self.purse.ended:
            self.purse = None
        self.draining = [purse for purse in self.draining if not purse.ended]


class Paths:
    """Every path of a worker, and as many as ``paths_max``."""

    def __init__(self, bounds: LeaseBounds) -> None:
        self._bounds = bounds
        self._by_claims: dict[int, Path] = {}  # by id(): whoever reserves hands in the same tuple for the same path
        self._paths: dict[tuple[str, tuple[Claim, ...]], Path] = {}

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths.values())

    def of(self, tenant: str, claims: Sequence[Claim]) -> Path | None:
        """The path of these claims; None when there are too many."""
        path = self._by_claims.get(id(claims))
        if path is not None and path.tenant == tenant and path.claims is claims:
            return path
        known = claims if isinstance(claims, tuple) else tuple(claims)
        path = self._paths.get((tenant, known))
        if path is None:
            if len(self._paths) >= self._bounds.paths_max:
                return None
            path = self._paths[(tenant, known)] = Path(tenant, known)
        self._by_claims.pop(id(path.claims), None)
        path.claims = known
        self._by_claims[id(known)] = path
        return path

    def forget_idle(self, path: Path, now_ns: int) -> None:
        """A path that has no lease and was not used for long is forgotten."""
        idle_ns = now_ns - path.last_ns
        if path.asking is None and not path.refilling and idle_ns > self._bounds.path_idle_s * NS:
            self._paths.pop((path.tenant, path.claims), None)
            self._by_claims.pop(id(path.claims), None)
