"""Idempotency-Keys in the store: one place a key, taken by one statement, so that two workers never both begin.

The answer is sealed under a key derived from scope, Idempotency-Key and the deployment's secret. The Idempotency-Key itself
is not kept: who holds the table and the secret still cannot read an answer without the key that its client chose.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct
from psycopg.rows import TupleRow

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Store
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.op import Op
from shipworthy.ports import REPLAYED_BYTES_MAX, Stored

NONCE_BYTES = 12
BEGIN_TRIES = 3  # the place may be freed between the two statements


class RepeatBounds(Struct, frozen=True, kw_only=True):
    """Every bound of what is kept for repeats."""

    kept_s: float = 86_400.0
    in_flight_s: float = 900.0  # past it the worker that began counts as dead; a later deadline gets that and a minute
    body_bytes_max: int = REPLAYED_BYTES_MAX
    swept_max: int = 16  # places past their time that are freed with each one that is finished
    sweep_max: int = 1_000


class StoreRepeats:
    """Repeats. A crash between the answer and ``finish`` leaves the key in flight until ``in_flight_s`` is over."""

    def __init__(self, store: Store, secret: bytes, bounds: RepeatBounds | None = None) -> None:
        self._store = store
        self._secret = secret
        self.bounds = bounds or RepeatBounds()

    async def begin(self, op: Op, tenant: str, scope: str, key: str, body_sha256: bytes) -> Stored | None:
        place = self._derived(b"place", tenant, scope, key)
        digest = hashlib.sha256(place + body_sha256).digest()
        named = {"tenant": tenant, "place": place}
        begun = {**named, "digest": digest, "exchange_id": op.id, "in_flight_s": self._in_flight_s(op)}
        for _ in range(BEGIN_TRIES):
            async with self._store.tenant(tenant) as conn:
                if await (await conn.execute(blocks("repeats")["begin"], begun)).fetchone():
                    return None
                taken = await (await conn.execute(blocks("repeats")["taken"], named)).fetchone()
            if taken is not None:
                return self._judged(taken, digest, place, tenant, scope, key)
        raise StoreUnavailable("an Idempotency-Key was freed and taken again and again")

    async def finish(self, op: Op, tenant: str, scope: str, key: str, stored: Stored | None) -> None:
        """Keeps the answer, or frees the place. Whoever was taken for dead meanwhile changes nothing."""
        place = self._derived(b"place", tenant, scope, key)
        named: dict[str, object] = {"tenant": tenant, "place": place, "exchange_id": op.id}
        async with self._store.tenant(tenant) as conn:
            if stored is None or len(stored.body) > self.bounds.body_bytes_max:
                await conn.execute(blocks("repeats")["forget"], named)
            else:
                nonce = os.urandom(NONCE_BYTES)
                cipher = AESGCM(self._derived(b"answer", tenant, scope, key))
                kept = {
                    "status": stored.status,
                    "content_type": stored.content_type,
                    "nonce": nonce,
                    "ciphertext": cipher.encrypt(nonce, stored.body, place + op.id.bytes),
                    "kept_s": self.bounds.kept_s,
                }
                await conn.execute(blocks("repeats")["keep"], named | kept)
            await conn.execute(blocks("repeats")["sweep"], {"tenant": tenant, "limit": self.bounds.swept_max})

    async def sweep(self, tenant: str) -> int:
        """Frees what is past its time, for tenants that send no more keys; at most ``sweep_max`` places, and how many."""
        async with self._store.tenant(tenant) as conn:
            swept = await conn.execute(blocks("repeats")["sweep"], {"tenant": tenant, "limit": self.bounds.sweep_max})
            return swept.rowcount

    def _in_flight_s(self, op: Op) -> float:
        if not op.deadline_ns:
            return self.bounds.in_flight_s
        left_s = (op.deadline_ns - op.clock.monotonic_ns()) / 1e9
        return max(self.bounds.in_flight_s, left_s + 60.0)

    def _judged(self, taken: TupleRow, digest: bytes, place: bytes, tenant: str, scope: str, key: str) -> Stored:
        known, exchange_id, status, content_type, nonce, ciphertext = taken
        if not hmac.compare_digest(bytes(known), digest):
            raise Refusal("idempotency.other_body")
        if status is None:
            raise Refusal("idempotency.in_flight", retry_after_s=1)
        cipher = AESGCM(self._derived(b"answer", tenant, scope, key))
        try:
            body = cipher.decrypt(bytes(nonce), bytes(ciphertext), place + exchange_id.bytes)
        except InvalidTag as changed:
            raise StoreUnavailable(f"the answer kept for {exchange_id} is not what was sealed") from changed
        return Stored(exchange_id, status, content_type, body)

    def _derived(self, purpose: bytes, tenant: str, scope: str, key: str) -> bytes:
        """32 bytes for this purpose; lengths stand before the parts, so that no two inputs read the same."""
        parts = [part.encode("utf-8", "surrogatepass") for part in (tenant, scope, key)]
        text = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._secret, b"shipworthy/repeat/" + purpose + b"\0" + text, "sha256")
