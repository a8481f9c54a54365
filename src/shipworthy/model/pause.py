"""A pause: one session, or one principal, is refused before money is reserved until an administrator releases it.

A principal is named by who spends: a service key by its id (``key:ID``), anyone else by issuer and subject
(``ISSUER#SUBJECT``), also when a service acts for them. The subject alone would be ambiguous between issuers. A session's id
is its client's choice, so that it means something only together with the principal that sent it.
"""

from __future__ import annotations

import shlex
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from shipworthy.model.identity import Principal
from shipworthy.model.policy import Watched

ISSUER_CHARS_MAX = 512
REASON_CHARS_MAX = 2_000
RUNAWAY = "runaway"
"""Who paused, when it was the watch and no person."""


class Placed(StrEnum):
    """How an attempt to pause ended."""

    PAUSED = "paused"
    ALREADY = "already"  # the same one stands
    FULL = "full"  # the tenant has its fill of pauses: nothing was paused


class PauseAsked(Struct, frozen=True, kw_only=True):
    """A pause that somebody wants, or the watch."""

    tenant: str
    id: UUID
    kind: Watched
    principal: str
    session: str
    reason: str
    by: str


class Pause(Struct, frozen=True, kw_only=True):
    """A pause that stands, or stood until ``released_at``. ``session`` is "" for a principal's."""

    tenant: str
    id: UUID
    kind: Watched
    principal: str
    session: str
    reason: str
    at: datetime  # the store's clock
    by: str
    released_at: datetime | None = None
    released_by: str | None = None
    released_because: str | None = None

    @property
    def name(self) -> str:
        """What is paused, as ``shipworthy cost`` calls it; a session also needs its principal."""
        return self.session if self.kind is Watched.SESSION else self.principal


def spender(principal: Principal) -> str:
    """The principal's name. The store's function of the same name says the same of a row."""
    if principal.key_id and not principal.actor:
        return f"key:{principal.key_id}"
    return f"{principal.issuer[:ISSUER_CHARS_MAX]}#{principal.subject}"


def release_command(tenant: str, kind: Watched, principal: str, session: str) -> str:
    """What an administrator types to release it."""
    of = ["--of", principal] if kind is Watched.SESSION else []
    words = ["shipworthy", "cost", "release", kind.value, session or principal, *of, "--tenant", tenant]
    return f'{shlex.join(words)} --because "…"'
