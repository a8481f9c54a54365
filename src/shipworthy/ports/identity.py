"""Who may speak: tokens verified and inspected, service keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from shipworthy.model.identity import Principal
from shipworthy.model.op import Op
from shipworthy.ports.acts import AdminAct


class TokenVerifier(Protocol):
    async def verify(self, op: Op, token: str) -> Principal:
        """The principal that a signed token proves. Raises Refusal identify.*; only an operator may lack a tenant."""


class KeyVerifier(Protocol):
    async def verify(self, op: Op, key: str) -> Principal:
        """The principal behind a service key. Raises Refusal identify.key_*; fails closed when its knowledge is too old."""


class TokenCheck(Struct, frozen=True, gc=False):
    """One check of a token: ``passed``, ``refused`` with its code, or ``unchecked`` because it could not be made."""

    name: str
    result: str
    said: str
    code: str = ""


class TokenReading(Struct, frozen=True):
    """What a token says and how far it may be believed. ``principal`` is whom it names, whether it is believed or not."""

    checks: tuple[TokenCheck, ...]
    header: Mapping[str, object]
    claims: Mapping[str, object]
    principal: Principal | None


class TokenInspector(Protocol):
    async def inspect(self, op: Op, token: str) -> TokenReading:
        """The verifier's checks one by one, for a person. Never raises for what a token holds."""


class TokenWish(Struct, frozen=True, kw_only=True):
    """What a development token shall say. ``clearance`` and ``actor`` "" = nothing."""

    tenant: str
    subject: str
    groups: tuple[str, ...]
    clearance: str = ""
    actor: str = ""
    ttl_s: int


class TokenMinter(Protocol):
    def mint(self, wish: TokenWish, id: UUID, now_unix_ns: int) -> str:
        """A signed token that says what was wished. Whoever calls has checked the wish."""


class ServiceKey(Struct, frozen=True, kw_only=True):
    """A service key as it may be listed: never the key itself. ``secret_hmac`` is HMAC-SHA256 under the pepper."""

    id: str
    tenant: str
    name: str
    role: str
    use_cases: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    created_by: str
    secret_hmac: bytes


class KeyStore(Protocol):
    async def find(self, key_id: str) -> ServiceKey | None: ...
    async def create(self, key: ServiceKey, act: AdminAct) -> None: ...
    async def list(self, tenant: str) -> Sequence[ServiceKey]: ...
    async def revoke(self, tenant: str, key_id: str, act: AdminAct) -> bool: ...
