"""Rows of exchanges for tests: a plausible served one, changed where the test cares."""

from __future__ import annotations

import random

from msgspec.structs import replace

from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.guard import Receipt
from shipworthy.model.money import Basis, ChargeLine, Component, Usage
from shipworthy.model.op import Step, uuid7
from shipworthy.model.route import Attempt, Candidate

ARRIVED_UNIX_NS = 1_795_297_327_123_000_000  # 2026-11-21 21:42:07.123 UTC
MS = 1_000_000


def row(**changes: object) -> Row:
    """A served exchange: alice of northwind asked support, the second model answered after the first had failed."""
    arrived_unix_ns = changes.get("arrived_unix_ns", ARRIVED_UNIX_NS)
    assert isinstance(arrived_unix_ns, int)
    served = Row(
        id=uuid7(arrived_unix_ns),
        arrived_unix_ns=arrived_unix_ns,
        environment="production",
        region="",
        kind="request",
        tenant="northwind",
        team="support",
        role="agent",
        subject="alice",
        actor="",
        end_user="",
        issuer="https://login.example",
        key_id="",
        session="s-1",
        use_case="support",
        alias="gpt-4o",
        operation="chat",
        dialect="openai-chat",
        mode="enforce",
        data_class="internal",
        clearance="internal",
        release_digest="5f2c9d0e" * 8,
        manifest_digest="a1b2c3d4" * 8,
        rules=("role agent", "alias gpt-4o"),
        strategy="first",
        candidates=_candidates(),
        attempts=_attempts(),
        steps=_steps(),
        receipts=_receipts(),
        passage_ids=(),
        usage=Usage(input=1_200, output=300),
        charge_lines=_charge_lines(),
        estimated_nano=2_400_000,
        held_nano=2_400_000,
        charged_nano=960_000,
        overrun_nano=0,
        lease_id=None,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        outcome=Outcome.SERVED,
        refusal_code="",
        refusal_detail="",
        model="small",
        provider="openai",
        source="model",
        stream=True,
        finish=("stop",),
        cut=(),
        flags=(),
        duration_ns=1_850 * MS,
        first_token_ns=640 * MS,
        request_bytes=5_120,
        reply_bytes=2_048,
    )
    return replace(served, **changes)


def refused(code: str = "reserve.budget_exhausted", **changes: object) -> Row:
    """The same sender, refused before a provider was asked."""
    nothing: dict[str, object] = {
        "outcome": Outcome.REFUSED,
        "refusal_code": code,
        "refusal_detail": "The month budget of team=support does not cover this request.",
        "candidates": (),
        "attempts": (),
        "receipts": (),
        "charge_lines": (),
        "usage": None,
        "held_nano": 0,
        "estimated_nano": 0,
        "charged_nano": 0,
        "steps": (*_steps()[:2], Step("reserve", 2 * MS, 3 * MS, refused=code)),
        "strategy": "",
        "model": "",
        "provider": "",
        "source": "",
        "finish": (),
        "duration_ns": 6 * MS,
        "first_token_ns": 0,
        "reply_bytes": 0,
    }
    return row(**{**nothing, **changes})


def spent(tenant: str, arrived_unix_ns: int, seed: int) -> Row:
    """A row of any outcome whose charge lines are of several models, as after a fallback that was billed."""
    draw = random.Random(seed)  # noqa: S311 — the same seed draws the same row
    models, components = ["small", "large", "local"], list(Component)
    lines = tuple(
        ChargeLine(
            n, draw.choice(models), draw.choice(components), draw.randrange(10**6), 1, draw.randrange(10**12), basis
        )
        for n, basis in enumerate(draw.choices(list(Basis), k=draw.randrange(5)))
    )
    charged_nano = sum(line.amount_nano for line in lines)
    return row(
        tenant=tenant,
        arrived_unix_ns=arrived_unix_ns,
        team=draw.choice(["support", "sales"]),
        use_case=draw.choice(["faq", "quotes"]),
        subject=draw.choice(["alice", "bob"]),
        outcome=draw.choice(list(Outcome)),
        model=draw.choice(["", *models]),
        charge_lines=lines,
        charged_nano=charged_nano,
        overrun_nano=draw.choice([0, 0, charged_nano // 3]),
    )


def _candidates() -> tuple[Candidate, ...]:
    return (
        Candidate("local", "house", True, "first: first choice"),
        Candidate("small", "openai", True, "first: fallback 1"),
        Candidate("large", "elsewhere", False, "boundary: regions [us] are not within [eu]"),
    )


def _attempts() -> tuple[Attempt, ...]:
    return (
        Attempt(0, "local", "house", "qwen3-8b", 8 * MS, 12 * MS, failure="connect", detail="refused", sent=False),
        Attempt(1, "small", "openai", "gpt-4.1-mini", 21 * MS, 1_815 * MS, first_token_ns=619 * MS, status=200),
    )


def _steps() -> tuple[Step, ...]:
    return (
        Step("identify", 0, MS // 2),
        Step("decode", MS // 2, MS),
        Step("reserve", 2 * MS, 3 * MS, tokens=2_200, cost_nano=2_400_000),
        Step("route", 6 * MS, MS),
        Step("call", 8 * MS, 632 * MS),
        Step("deliver", 640 * MS, 1_196 * MS, tokens=300),
        Step("settle", 1_836 * MS, MS),
        Step("record", 1_838 * MS, 11 * MS),
    )


def _receipts() -> tuple[Receipt, ...]:
    return (
        Receipt("screen", "pii", "ran", "nothing found in 2 parts"),
        Receipt("recall", "cache", "not_configured"),
    )


def _charge_lines() -> tuple[ChargeLine, ...]:
    return (
        ChargeLine(1, "small", Component.INPUT, 1_200, 400_000, 480_000, Basis.REPORTED),
        ChargeLine(1, "small", Component.OUTPUT, 300, 1_600_000, 480_000, Basis.REPORTED),
    )
