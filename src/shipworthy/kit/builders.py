"""Nouns for tests, whole and valid: say only what the test is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import structs

from shipworthy.kit import rows
from shipworthy.model.exchange import Row
from shipworthy.model.ledger import Charge, Claim, Estimate, Hold
from shipworthy.model.money import Basis, ChargeLine, Component, Usage
from shipworthy.model.observation import Observation
from shipworthy.model.op import Op, SystemClock

PERIOD_START = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD_END = datetime(2100, 1, 1, tzinfo=UTC)


def an_op(observed: list[Observation] | None = None) -> Op:
    """A request's operation context on the machine's clock."""
    return Op.for_request(SystemClock(), (observed if observed is not None else []).append)


def a_claim(
    key: str = "tenant", cap_nano: int = -1, *, requests: int = 0, tokens: int = 0, concurrent: int = 0
) -> Claim:
    """One level; without arguments it asks for nothing."""
    budget = cap_nano >= 0
    return Claim(
        key=key,
        cap_nano=cap_nano,
        period="month" if budget else "",
        period_start=PERIOD_START if budget else None,
        period_end=PERIOD_END if budget else None,
        requests_per_min=requests,
        tokens_per_min=tokens,
        concurrent=concurrent,
    )


def an_estimate(amount_nano: int, tokens: int = 100) -> Estimate:
    return Estimate(tokens - tokens // 2, tokens // 2, amount_nano)


def a_charge(hold: Hold, amount_nano: int, tokens: int = 50, basis: Basis = Basis.REPORTED) -> Charge:
    """A charge of one line."""
    line = ChargeLine(0, "small", Component.INPUT, 1, amount_nano * 1_000, amount_nano, basis)
    overrun_nano = max(0, amount_nano - hold.estimate.amount_nano)
    return Charge((line,) if amount_nano else (), amount_nano, overrun_nano, tokens)


def a_row(op: Op, tenant: str = "northwind", **changes: object) -> Row:
    """A served exchange of one tenant."""
    return structs.replace(_ROW, id=op.id, arrived_unix_ns=op.arrived_unix_ns, tenant=tenant, **changes)


def a_settled_row(op: Op, hold: Hold, charge: Charge, **changes: object) -> Row:
    """The row of an exchange that held and was charged."""
    return a_row(
        op,
        hold.tenant,
        estimated_nano=hold.estimate.amount_nano,
        held_nano=hold.estimate.amount_nano,
        charge_lines=charge.lines,
        charged_nano=charge.amount_nano,
        overrun_nano=charge.overrun_nano,
        **changes,
    )


def in_period(days: int) -> datetime:
    return PERIOD_START + timedelta(days=days)


_ROW = rows.row(
    environment="test",
    region="eu",
    subject="ada",
    session="",
    alias="",
    rules=("stays-home",),
    candidates=(),
    attempts=(),
    steps=(),
    receipts=(),
    usage=Usage(input=10, output=5),
    charge_lines=(),
    estimated_nano=0,
    held_nano=0,
    charged_nano=0,
    traceparent="",
    provider="house",
    stream=False,
    duration_ns=1_500_000,
    first_token_ns=900_000,
    request_bytes=120,
    reply_bytes=340,
)
