"""One request and everything learned from it: the write-once ``Exchange``, and the ``Row`` that is kept for ever.

Only ``pipeline`` and the record stage see an Exchange. The Row's fields are frozen from the first commit: later facts are
linked rows, never changes.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from shipworthy.model.chat import Event, Reply, Request
from shipworthy.model.errors import Refusal
from shipworthy.model.guard import Receipt, Screened
from shipworthy.model.identity import Grant, Principal
from shipworthy.model.knowledge import Passages
from shipworthy.model.ledger import Charge, Hold
from shipworthy.model.money import ChargeLine, Usage
from shipworthy.model.op import Op, Step
from shipworthy.model.prompt import Fitted, Hit, Prompt
from shipworthy.model.route import Attempt, Candidate, Route


class Outcome(StrEnum):
    """How an exchange ended: exactly one."""

    SERVED = "served"
    REFUSED = "refused"  # a stage said no; nothing was asked of a provider
    CUT = "cut"  # the reply broke after its first delta
    FAILED = "failed"  # no provider answered, or we failed
    ABANDONED = "abandoned"  # the client left first


class Exchange:
    """Everything learned so far. A noun is written once, by the pipeline's own assignment; ``attempts`` append.

    tests/house/test_exchange.py keeps that: a check at every assignment costs each request ten microseconds.
    """

    __slots__ = (
        "attempts", "charge", "fitted", "grant", "hit", "hold", "idempotency_key", "op", "outcome", "passages", "peer",
        "principal", "prompt", "received", "refusal", "replay_of", "reply", "request", "route", "screened", "session",
    )  # fmt: skip

    op: Op
    peer: str
    session: str
    idempotency_key: str
    attempts: list[Attempt]
    received: Received
    principal: Principal
    request: Request
    grant: Grant
    hold: Hold
    prompt: Prompt
    passages: Passages
    screened: Screened
    fitted: Fitted
    hit: Hit
    route: Route
    reply: Reply
    charge: Charge
    outcome: Outcome
    refusal: Refusal
    replay_of: UUID  # the exchange whose stored answer was given again

    def __init__(self, op: Op, peer: str = "", session: str = "", idempotency_key: str = "") -> None:
        self.op = op
        self.peer = peer
        self.session = session
        self.idempotency_key = idempotency_key
        self.attempts = []
        self.received = Received()


FINISH_MAX, FINISH_CHARS_MAX = 64, 64
"""Of the reasons for which choices ended, what the row keeps: a provider may say anything, any number of times."""


class Received:
    """What arrived from the provider so far: the basis of settlement when it reports no usage, and of the record."""

    __slots__ = (
        "done", "finish", "first_ns", "kept_bytes_max", "last_ns", "opaque", "payload_bytes", "payloads", "text_chars",
        "usage", "usage_refused",
    )  # fmt: skip

    def __init__(self) -> None:
        self.payloads: list[bytes] = []  # what was sent to the client, up to kept_bytes_max
        self.payload_bytes = 0
        self.kept_bytes_max = 0
        self.text_chars = 0  # output text, reasoning and tool arguments
        self.usage: Usage | None = None
        self.finish: list[str] = []
        self.first_ns = 0  # since the exchange began
        self.last_ns = 0
        self.usage_refused = False  # the provider sent figures that cannot be true
        self.opaque = False  # content came that nobody here can read
        self.done = False  # the provider said that this was all

    def note(self, event: Event, payload: bytes, elapsed_ns: int) -> None:
        """Takes one event and what the client gets of it into account."""
        if not self.first_ns:
            self.first_ns = elapsed_ns
        self.last_ns = elapsed_ns
        for delta in event.deltas:
            if not delta.repeat:
                self.text_chars += len(delta.text)
        if payload:
            if self.payload_bytes < self.kept_bytes_max:
                self.payloads.append(payload)
            self.payload_bytes += len(payload)
        if event.usage is not None:
            self.usage = event.usage if self.usage is None else self.usage.at_least(event.usage)
        if event.finish:
            for _, reason in event.finish[: FINISH_MAX - len(self.finish)]:
                self.finish.append(reason[:FINISH_CHARS_MAX])
        if event.done or event.opaque or event.usage_refused:
            self.done |= event.done
            self.opaque |= event.opaque
            self.usage_refused |= event.usage_refused


class Row(Struct, frozen=True, kw_only=True):
    """One exchange as it is stored, exported and verified."""

    id: UUID
    arrived_unix_ns: int
    environment: str
    region: str
    kind: str
    tenant: str
    team: str
    role: str
    subject: str
    actor: str
    end_user: str
    issuer: str
    key_id: str
    session: str
    use_case: str
    alias: str
    operation: str
    dialect: str
    mode: str
    data_class: str
    clearance: str
    release_digest: str
    manifest_digest: str
    rules: tuple[str, ...]
    strategy: str
    candidates: tuple[Candidate, ...]
    attempts: tuple[Attempt, ...]
    steps: tuple[Step, ...]
    receipts: tuple[Receipt, ...]
    passage_ids: tuple[str, ...]
    usage: Usage | None
    charge_lines: tuple[ChargeLine, ...]
    estimated_nano: int
    held_nano: int
    charged_nano: int
    overrun_nano: int
    lease_id: UUID | None
    traceparent: str
    outcome: Outcome
    refusal_code: str
    refusal_detail: str
    model: str
    provider: str
    source: str
    stream: bool
    finish: tuple[str, ...]
    cut: tuple[str, ...]  # what fit shortened or capped, in words
    flags: tuple[str, ...]  # usage_counted, drained, presumed, body_truncated, mode_observed …
    duration_ns: int
    first_token_ns: int
    request_bytes: int
    reply_bytes: int


class Bodies(Struct, frozen=True):
    """What was said, before encryption: kept apart from the Row, under its own retention and byte cap."""

    request: bytes
    reply: bytes
    truncated: bool
