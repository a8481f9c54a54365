"""What the store says to a reservation, a lease, or the turn of one."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from shipworthy.model.errors import Refusal
from shipworthy.model.lease import Share
from shipworthy.model.ledger import Standing
from shipworthy.ports import Advance


class Verdict(Struct, frozen=True):
    """What the store answered: the type ``verdict`` of migration 0003."""

    reason: str | None
    key: str | None
    period: str | None
    retry_after_s: float | None
    holds_only: bool | None
    limit_requests: int | None
    remaining_requests: int | None
    reset_requests_s: float | None
    limit_tokens: int | None
    remaining_tokens: int | None
    reset_tokens_s: float | None
    granted: bool = False  # a lease
    nano: int | None = None
    requests: int | None = None
    tokens: int | None = None
    places: int | None = None
    again: bool = False  # it was asked before, and the answer was lost

    def advance(self) -> Advance:
        given = Share(self.nano or 0, self.requests or 0, self.tokens or 0, self.places or 0) if self.granted else None
        return Advance(given, self.standing(), certain=not self.again)

    def standing(self) -> Standing:
        return Standing(
            self.limit_requests or 0,
            self.remaining_requests or 0,
            self.reset_requests_s or 0.0,
            self.limit_tokens or 0,
            self.remaining_tokens or 0,
            self.reset_tokens_s or 0.0,
        )


class TurnVerdict(Verdict, frozen=True, kw_only=True):
    """What the store answered to the turn of one lease; of the verdict only the standing."""

    lease: UUID
    gone: bool
    second: int


CODES = {
    "budget_exhausted": "reserve.budget_exhausted",
    "requests_limit": "reserve.requests_limit",
    "tokens_limit": "reserve.tokens_limit",
    "concurrent_limit": "reserve.concurrent_limit",
}
"""By the store's reason."""


def refusal(verdict: Verdict) -> Refusal:
    """What the client reads; money never asks for a retry."""
    money = verdict.reason == "budget_exhausted"
    return Refusal(
        CODES[verdict.reason or ""],
        detail="only holds of requests in flight stand in the way" if verdict.holds_only else "",
        retry_after_s=verdict.retry_after_s,
        retryable=False if money else None,
        level=verdict.key or "",
        period=verdict.period or "",
    )
