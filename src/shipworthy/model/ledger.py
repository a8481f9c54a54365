"""Reservation: estimate → hold → settle → charge lines.

Invariant at every level, after every step: ``charged + held + leased + suspended + free = cap``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from msgspec import Struct

from shipworthy.model.money import ChargeLine

if TYPE_CHECKING:
    from shipworthy.model.lease import Purse


class Estimate(Struct, frozen=True, gc=False):
    """The most that a request can use: token ceilings, and their price at the dearest permitted model."""

    input_tokens: int
    output_tokens: int
    amount_nano: int
    input_expected: int = 0  # by the models' calibrated ratio: the count when a provider reports none
    countable: bool = True  # False: media are in it whose tokens nobody here can count

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Claim(Struct, frozen=True):
    """What one level is asked for, with its caps resolved to the running period. 0 = no cap of that kind."""

    key: str
    cap_nano: int  # -1 = no budget at this level
    period: str  # "month", for messages
    period_start: datetime | None
    period_end: datetime | None
    requests_per_min: int
    tokens_per_min: int
    concurrent: int


class Standing(Struct, frozen=True, gc=False):
    """What is left at the tightest level after a reservation: the x-ratelimit headers."""

    limit_requests: int = 0
    remaining_requests: int = 0
    reset_requests_s: float = 0.0
    limit_tokens: int = 0
    remaining_tokens: int = 0
    reset_tokens_s: float = 0.0


class Hold(Struct):
    """Money and counts set aside for one exchange. Settled on every exit; a hold that expires is settled by the sweeper.

    ``estimate`` is what is set aside now: the call stage raises it in place where a further attempt needs more.
    """

    id: UUID  # the exchange's
    tenant: str
    estimate: Estimate
    claims: tuple[Claim, ...]
    standing: Standing
    lease_id: UUID | None = None
    purse: Purse | None = None  # the lease that it is drawn from, until it is settled
    placed: bool = False  # whether it takes a place of the lease's
    second: int = 0  # of the sliding minute in which it counts, once the store has said so
    intent: object = None  # ports.Intent, while it may still have to be written; None: it is held directly
    estimated_nano: int = 0  # the ceiling at which it was asked for, whatever was trimmed or raised since
    uncovered: Mapping[str, str] = {}  # permitted models that it is not for, each with the level without room for it


class Charge(Struct, frozen=True):
    """What an exchange really cost, in lines. ``overrun_nano`` went beyond the hold: charged, named, never hidden."""

    lines: tuple[ChargeLine, ...]
    amount_nano: int
    overrun_nano: int
    tokens: int


def level_words(key: str) -> str:
    """A level's key as a person says it: ``tenant`` → the tenant, ``team=support`` → team support."""
    return "the tenant" if key == "tenant" else ", ".join(key.replace("=", " ").replace("_", " ").split("/"))
