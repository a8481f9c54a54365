"""A finished row as spans, in OpenTelemetry's GenAI names and our own ``shipworthy.*``: pure, without its libraries.

    exchange support            SERVER    the whole exchange; what it cost, how it ended
    ├── identify … record       INTERNAL  a stage each, side by side
    ├── chat qwen3-8b           CLIENT    an attempt that failed
    └── chat gpt-4.1-mini       CLIENT    the attempt that answered: usage, finish reasons

Attempts stand beside the stages, because a stream's attempt outlives the call stage. Usage stands on attempts alone: who
sums ``gen_ai.usage.*`` counts no token twice. No content ever: not what was asked or answered, nor what errors quote of it.
The GenAI conventions are not stable: NAMES says which ones these are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from shipworthy.adapters.telemetry.redaction import excerpt
from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.money import NANO_PER_USD, Usage
from shipworthy.model.op import Step
from shipworthy.model.route import Attempt

NAMES = "gen-ai 2026-10, emitter 1"
SPANS_MAX = 64
"""Of one exchange; what is more is left out, and the root says how much."""
VALUE_CHARS_MAX = 256

Value = str | int | float | bool | tuple[str, ...]
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_OPERATIONS = {"embed": "embeddings"}
_ENDED_BADLY = (Outcome.FAILED, Outcome.CUT)


class Kind(Enum):
    SERVER = "server"
    INTERNAL = "internal"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Span:
    """One span to be. Times are unix nanoseconds. ``parent_id`` 0 = the trace begins here."""

    name: str
    kind: Kind
    span_id: int
    parent_id: int
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one exchange, the root first. ``parent_id`` of the root is the caller's span, in another process."""

    trace_id: int
    spans: tuple[Span, ...]


def is_sampled(traceparent: str) -> bool:
    """Whether the caller wants this trace kept. Who sends no trace context leaves it to us: yes."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return found is None or bool(int(found[3], 16) & 1)


def trace_of(row: Row) -> Trace:
    """The trace id is the caller's, else the exchange's own id, so that either finds the other."""
    trace_id, parent_id = _context(row.traceparent)
    spans = [_root(row, parent_id)]
    root = spans[0]
    number = 0
    for step in row.steps:
        number += 1
        spans.append(_stage(row, step, root.span_id, number))
    for attempt in row.attempts:
        number += 1
        spans.append(_attempt(row, attempt, root.span_id, number))
    if len(spans) > SPANS_MAX:
        left = {**root.attributes, "shipworthy.spans_left_out": len(spans) - SPANS_MAX}
        spans[0] = Span(root.name, root.kind, root.span_id, parent_id, root.start_ns, root.end_ns, left, root.failed)
    return Trace(trace_id or row.id.int, tuple(spans[:SPANS_MAX]))


def _context(traceparent: str) -> tuple[int, int]:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return 0, 0
    return int(found[1], 16), int(found[2], 16)


def _span_id(row: Row, number: int) -> int:
    return int.from_bytes(blake2b(row.id.bytes + number.to_bytes(4), digest_size=8).digest()) or 1


def _root(row: Row, parent_id: int) -> Span:
    known = row.use_case and row.refusal_code != "authorize.unknown_use_case" and row.mode
    return Span(
        name=f"exchange {row.use_case}" if known else "exchange",
        kind=Kind.SERVER,
        span_id=_span_id(row, 0),
        parent_id=parent_id,
        start_ns=row.arrived_unix_ns,
        end_ns=row.arrived_unix_ns + row.duration_ns,
        attributes=_told(
            {
                "gen_ai.conversation.id": row.session,
                "error.type": _error(row),
                "shipworthy.exchange_id": str(row.id),
                "shipworthy.kind": row.kind,
                "shipworthy.tenant": row.tenant,
                "shipworthy.team": row.team,
                "shipworthy.use_case": row.use_case,
                "shipworthy.outcome": row.outcome.value,
                "shipworthy.code": row.refusal_code,
                "shipworthy.mode": row.mode,
                "shipworthy.data_class": row.data_class,
                "shipworthy.model": row.model,
                "shipworthy.source": row.source,
                "shipworthy.strategy": row.strategy,
                "shipworthy.manifest_digest": row.manifest_digest,
                "shipworthy.release_digest": row.release_digest,
                "shipworthy.flags": row.flags,
            }
        )
        | {
            "shipworthy.cost_usd": row.charged_nano / NANO_PER_USD,
            "shipworthy.charged_nano": row.charged_nano,
            "shipworthy.overrun_nano": row.overrun_nano,
            "shipworthy.attempts": len(row.attempts),
            "shipworthy.stream": row.stream,
            "shipworthy.first_token_ms": row.first_token_ns / 1e6,
        },
        failed=row.outcome in _ENDED_BADLY,
    )


def _stage(row: Row, step: Step, parent_id: int, number: int) -> Span:
    start_ns = row.arrived_unix_ns + step.start_ns
    attributes = _told({"shipworthy.stage": step.stage, "error.type": step.refused})
    attributes |= {"shipworthy.tokens": step.tokens} if step.tokens else {}
    attributes |= {"shipworthy.cost_nano": step.cost_nano} if step.cost_nano else {}
    return Span(
        step.stage, Kind.INTERNAL, _span_id(row, number), parent_id, start_ns, start_ns + step.duration_ns, attributes,
        failed=bool(step.refused) and row.outcome in _ENDED_BADLY,
    )  # fmt: skip


def _attempt(row: Row, attempt: Attempt, parent_id: int, number: int) -> Span:
    start_ns = row.arrived_unix_ns + attempt.started_ns
    operation = _OPERATIONS.get(row.operation, row.operation) or "chat"
    answered = attempt is row.attempts[-1] and bool(row.model)
    attributes = _told(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": attempt.provider,
            "gen_ai.request.model": attempt.upstream,
            "gen_ai.conversation.id": row.session,
            "gen_ai.response.finish_reasons": row.finish if answered else (),
            "error.type": attempt.failure,
            "shipworthy.model": attempt.model,
            "shipworthy.exchange_id": str(row.id),
        }
    )
    attributes |= {"gen_ai.request.stream": row.stream, "shipworthy.attempt": attempt.number}
    attributes |= _usage(row.usage if answered else attempt.usage)
    if attempt.first_token_ns:
        attributes["gen_ai.response.time_to_first_chunk"] = attempt.first_token_ns / 1e9
    if attempt.status:
        attributes["http.response.status_code"] = attempt.status
    charged = sum(line.amount_nano for line in row.charge_lines if line.attempt == attempt.number)
    if charged:
        attributes["shipworthy.attempt_charged_nano"] = charged
    return Span(
        f"{operation} {attempt.upstream}", Kind.CLIENT, _span_id(row, number), parent_id, start_ns,
        start_ns + attempt.duration_ns, attributes, failed=bool(attempt.failure),
    )  # fmt: skip


def _usage(usage: Usage | None) -> dict[str, Value]:
    if usage is None:
        return {}
    named = {
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
    }
    return {
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.output_tokens": usage.output,
        "shipworthy.usage_basis": usage.basis.value,
        **{name: count for name, count in named.items() if count},
    }


def _error(row: Row) -> str:
    if row.outcome in (Outcome.SERVED, Outcome.ABANDONED):
        return ""
    return row.refusal_code or row.outcome.value


def _told(said: Mapping[str, str | tuple[str, ...]]) -> dict[str, Value]:
    """What is not empty, redacted and bounded: some of it is of the client's choice."""
    return {
        name: excerpt(value, VALUE_CHARS_MAX)
        if isinstance(value, str)
        else tuple(excerpt(each, VALUE_CHARS_MAX) for each in value[:SPANS_MAX])
        for name, value in said.items()
        if value
    }
