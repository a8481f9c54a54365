"""dedupe: a repeated request with the same Idempotency-Key gets the stored answer, unpaid.

Scope: tenant, principal, route, key. Another body is refused (422), one that still runs too (409).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from shipworthy.model.chat import Request
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Grant
from shipworthy.model.op import Op
from shipworthy.ports import Arrival, Repeats, Replay


def scope_of(grant: Grant, request: Request) -> str:
    """Who may see a stored answer: the same principal on the same route."""
    principal = grant.principal
    return "\x1f".join((principal.issuer, principal.key_id, principal.subject, principal.actor, request.dialect))


def make_dedupe(repeats: Repeats) -> Callable[[Op, Grant, Request, Arrival], Awaitable[None]]:
    """The stage, over the store of repeats. Raises Replay with the stored answer."""

    async def dedupe(op: Op, grant: Grant, request: Request, arrival: Arrival) -> None:
        if not arrival.idempotency_key:
            return
        digest = hashlib.sha256(request.body).digest()
        try:
            stored = await repeats.begin(
                op, grant.tenant.name, scope_of(grant, request), arrival.idempotency_key, digest
            )
        except StoreUnavailable as away:
            raise Refusal("reserve.store_unavailable", detail=str(away), retry_after_s=5) from away
        if stored is not None:
            raise Replay(stored)

    return dedupe
