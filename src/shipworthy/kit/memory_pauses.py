"""Pauses in memory: pass the same contract suite as the store's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from msgspec import structs

from shipworthy.model.pause import Pause, PauseAsked, Placed
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.ports import AdminAct, AdminRecorder

NS_PER_S = 1_000_000_000


class MemoryPauses:
    """A PauseStore in a dictionary; a pause begins and ends when its act says."""

    def __init__(self, acts: AdminRecorder, standing_max: int = 1_000) -> None:
        self.pauses: dict[UUID, Pause] = {}
        self.acts = acts
        self.standing_max = standing_max

    async def pause(self, asked: PauseAsked, act: AdminAct) -> Placed:
        standing = [each for each in self.pauses.values() if each.tenant == asked.tenant and each.released_at is None]
        if len(standing) >= self.standing_max:
            return Placed.FULL
        if any((each.principal, each.session) == (asked.principal, asked.session) for each in standing):
            return Placed.ALREADY
        await self.acts.act(act)
        self.pauses[asked.id] = Pause(at=_moment(act), **structs.asdict(asked))
        return Placed.PAUSED

    async def active(self, scope: str) -> Sequence[Pause]:
        if not scope:
            raise ValueError("an empty scope is an error, never everything")
        standing = [p for p in self.pauses.values() if scope in (EVERY_TENANT, p.tenant) and p.released_at is None]
        return sorted(standing, key=lambda pause: (pause.at, pause.id), reverse=True)

    async def release(self, tenant: str, pause_id: UUID, because: str, act: AdminAct) -> Pause | None:
        pause = self.pauses.get(pause_id)
        if pause is None or pause.tenant != tenant or pause.released_at is not None:
            return None
        await self.acts.act(act)
        ended = structs.replace(pause, released_at=_moment(act), released_by=act.actor, released_because=because)
        self.pauses[pause_id] = ended
        return ended


def _moment(act: AdminAct) -> datetime:
    return datetime.fromtimestamp(act.at_unix_ns / NS_PER_S, tz=UTC)
