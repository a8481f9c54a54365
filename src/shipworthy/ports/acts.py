"""Administrative acts, recorded the same way as exchanges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from msgspec import Struct


class AdminAct(Struct, frozen=True, kw_only=True):
    """An administrative act, recorded the same way as an exchange: who did what to what, when, with which result."""

    id: UUID
    at_unix_ns: int
    actor: str
    act: str  # key.create, key.revoke, token.mint, manifest.reload, body.read, exchanges.read …
    tenant: str  # "" = the whole deployment
    target: str
    facts: Mapping[str, str]


class AdminRecorder(Protocol):
    async def act(self, act: AdminAct) -> None: ...
