"""Service keys and Idempotency-Keys in memory: pass the same contract suites as the store's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from msgspec.structs import replace

from shipworthy.model.errors import Refusal
from shipworthy.model.op import Op
from shipworthy.ports import AdminAct, AdminRecorder, ServiceKey, Stored

NS_PER_S = 1_000_000_000


class MemoryKeys:
    """A KeyStore in a dictionary."""

    def __init__(self, acts: AdminRecorder) -> None:
        self.keys: dict[str, ServiceKey] = {}
        self.acts = acts

    async def find(self, key_id: str) -> ServiceKey | None:
        return self.keys.get(key_id)

    async def create(self, key: ServiceKey, act: AdminAct) -> None:
        await self.acts.act(act)
        self.keys[key.id] = key

    async def list(self, tenant: str) -> Sequence[ServiceKey]:
        return [key for key in self.keys.values() if key.tenant == tenant]

    async def revoke(self, tenant: str, key_id: str, act: AdminAct) -> bool:
        key = self.keys.get(key_id)
        if key is None or key.tenant != tenant or key.revoked_at is not None:
            return False
        await self.acts.act(act)
        self.keys[key_id] = replace(key, revoked_at=datetime.fromtimestamp(act.at_unix_ns / NS_PER_S, tz=UTC))
        return True


class MemoryRepeats:
    """Repeats in a dictionary, by the clock of the operation."""

    def __init__(self, *, kept_s: float = 86_400.0, in_flight_s: float = 900.0, body_bytes_max: int = 262_144) -> None:
        self.kept_ns = int(kept_s * NS_PER_S)
        self.in_flight_ns = int(in_flight_s * NS_PER_S)
        self.body_bytes_max = body_bytes_max
        self._known: dict[tuple[str, str, str], tuple[UUID, bytes, int, Stored | None]] = {}

    async def begin(self, op: Op, tenant: str, scope: str, key: str, body_sha256: bytes) -> Stored | None:
        now_ns = op.clock.unix_ns()
        known = self._known.get((tenant, scope, key))
        if known is None or known[2] <= now_ns:
            self._known[tenant, scope, key] = (op.id, body_sha256, now_ns + self.in_flight_ns, None)
            return None
        _, digest, _, stored = known
        if digest != body_sha256:
            raise Refusal("idempotency.other_body")
        if stored is None:
            raise Refusal("idempotency.in_flight", retry_after_s=1)
        return stored

    async def finish(self, op: Op, tenant: str, scope: str, key: str, stored: Stored | None) -> None:
        known = self._known.get((tenant, scope, key))
        if known is None or known[0] != op.id:
            return
        if stored is None or len(stored.body) > self.body_bytes_max:
            del self._known[tenant, scope, key]
            return
        self._known[tenant, scope, key] = (op.id, known[1], op.clock.unix_ns() + self.kept_ns, stored)
