"""record: one row per exchange, final. Everything the row says is read off the exchange here and nowhere else.

A request that was refused before its sender was known leaves no row: a counter and a line in the bounded security log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from shipworthy.model.chat import Request, Source
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Bodies, Exchange, Outcome, Received, Row
from shipworthy.model.guard import Receipt
from shipworthy.model.identity import Considered, Grant, Principal
from shipworthy.model.money import Basis
from shipworthy.model.observation import Ended, Refused, StoreDegraded
from shipworthy.model.op import Op, Step
from shipworthy.model.policy import Mode, Snapshot
from shipworthy.ports import Entry, Ledger, Recorder, Repeats, Stored
from shipworthy.stages.dedupe import scope_of

DETAIL_CHARS_MAX = 2_000
"""Of a refusal's detail, how much the row keeps."""
LATER_BYTES_MAX = 65_536
"""Of a request whose row is made later: what it was parsed into lives until then."""

_UNDECIDED = Considered()
_encode = msgspec.msgpack.Encoder().encode


Took = Callable[[Entry], None]
"""Whoever wants every finished row: traces."""


def make_record(
    snapshot: Snapshot, recorder: Recorder, ledger: Ledger, repeats: Repeats, took: Took
) -> Callable[[Op, Exchange], Awaitable[None] | None]:
    """The stage, over the store. Under ``strict`` it is done when the row is committed, else when it is queued: at once."""

    def record(op: Op, x: Exchange) -> Awaitable[None] | None:
        if not hasattr(x, "principal"):
            code, detail = (x.refusal.code, x.refusal.detail) if hasattr(x, "refusal") else ("decode.client_left", "")
            op.observe(Refused(op.id_text, code, detail, x.peer))
            return None
        duration_ns = op.elapsed_ns()
        entry = entry_of(snapshot, x, duration_ns)
        if snapshot.strict:
            return committed(op, x, entry, duration_ns)
        try:
            recorder.enqueue(entry)
        finally:
            leave(entry)
        return told(op, x, entry, duration_ns)

    async def committed(op: Op, x: Exchange, entry: Entry, duration_ns: int) -> None:
        try:
            await recorder.record(entry)
        finally:
            leave(entry)
        if (freeing := told(op, x, entry, duration_ns)) is not None:
            await freeing

    def leave(entry: Entry) -> None:
        if entry.hold is not None:
            ledger.leave(entry.hold)

    def told(op: Op, x: Exchange, entry: Entry, duration_ns: int) -> Awaitable[None] | None:
        """Whoever listens hears of the row; what is still to be waited for."""
        took(entry)
        op.observe(ended(x, duration_ns))
        return free(op, x) if x.idempotency_key and hasattr(x, "grant") else None

    async def free(op: Op, x: Exchange) -> None:
        """Keeps the answer for repeats, or frees their place, also when money or limits refused the request. It is recorded
        by now, so that it is given even if the place cannot be reached."""
        scope = scope_of(x.grant, x.request)
        try:
            await repeats.finish(op, x.principal.tenant, scope, x.idempotency_key, answer_of(x))
        except StoreUnavailable as away:
            op.observe(StoreDegraded("repeats", str(away), 1))

    return record


def make_draft(snapshot: Snapshot) -> Callable[[Op, Grant, Request, Mapping[str, str]], bytes]:
    """The row as far as it is known when money is set aside: what the sweeper completes if this worker dies."""

    def draft(op: Op, grant: Grant, request: Request, uncovered: Mapping[str, str]) -> bytes:
        row = drafted(snapshot, op, grant.principal, grant.considered, request)
        flags = downgraded(uncovered)
        return _encode(replace(row, end_user=grant.end_user, session=grant.session, flags=flags))

    return draft


def entry_of(snapshot: Snapshot, x: Exchange, duration_ns: int) -> Entry:
    """What is recorded of an ended exchange. Of one that was served it is made later, behind the answer, unless it is so
    large that what it is made of had better go at once."""
    hold, charge = getattr(x, "hold", None), getattr(x, "charge", None)
    most, left = snapshot.bodies.bytes_max, x.op.left
    if x.outcome is Outcome.SERVED and len(x.request.body) <= LATER_BYTES_MAX:
        size = min(len(x.request.body), most) + min(x.received.payload_bytes, most)
        return Entry.later(
            x.op.id, x.outcome, size, hold, charge, partial(kept_of, snapshot, x, duration_ns, left=left)
        )
    row, bodies = kept_of(snapshot, x, duration_ns, left=left)
    return Entry(row, bodies, hold, charge)


def kept_of(snapshot: Snapshot, x: Exchange, duration_ns: int, *, left: bool) -> tuple[Row, Bodies | None]:
    """The row of an ended exchange, and what is kept beside it. ``left``: its client had gone by then."""
    bodies = bodies_of(snapshot, x)
    return row_of(snapshot, x, bodies, duration_ns, left=left), bodies


def row_of(snapshot: Snapshot, x: Exchange, bodies: Bodies | None, duration_ns: int, *, left: bool) -> Row:
    """The draft, and how it went on."""
    route, hold, charge = getattr(x, "route", None), getattr(x, "hold", None), getattr(x, "charge", None)
    refusal, reply, fitted = getattr(x, "refusal", None), getattr(x, "reply", None), getattr(x, "fitted", None)
    considered = _considered(x)
    return Row(
        **_known(snapshot, x.op, x.principal, considered, getattr(x, "request", None)),
        end_user=x.grant.end_user if hasattr(x, "grant") else "",
        session=x.session,
        release_digest=x.prompt.digest if hasattr(x, "prompt") else "",
        strategy=route.strategy if route else "",
        candidates=route.candidates if route else considered.candidates,
        attempts=tuple(x.attempts),
        steps=_steps(x),
        receipts=_receipts(x),
        passage_ids=x.passages.ids if hasattr(x, "passages") else (),
        usage=x.received.usage,
        charge_lines=charge.lines if charge else (),
        estimated_nano=hold.estimated_nano if hold else 0,
        held_nano=hold.estimate.amount_nano if hold else 0,
        charged_nano=charge.amount_nano if charge else 0,
        overrun_nano=charge.overrun_nano if charge else 0,
        lease_id=hold.lease_id if hold else None,
        outcome=x.outcome,
        refusal_code=refusal.code if refusal else "",
        refusal_detail=_told(refusal)[:DETAIL_CHARS_MAX] if refusal else "",
        model=reply.model.name if reply else "",
        provider=reply.model.provider.name if reply else "",
        source=_source(x),
        finish=tuple(x.received.finish),
        cut=fitted.cut if fitted else (),
        flags=_flags(x, bodies, left=left),
        duration_ns=duration_ns,
        first_token_ns=x.received.first_ns,
        reply_bytes=x.received.payload_bytes,
    )


def _known(
    snapshot: Snapshot, op: Op, principal: Principal, considered: Considered, request: Request | None
) -> dict[str, Any]:
    """What a row says of the sender and of policy's decision."""
    return {
        "id": op.id,
        "arrived_unix_ns": op.arrived_unix_ns,
        "environment": snapshot.environment,
        "region": snapshot.region,
        "kind": op.kind,
        "tenant": principal.tenant,
        "team": considered.team,
        "role": considered.role,
        "subject": principal.subject,
        "actor": principal.actor,
        "issuer": principal.issuer,
        "key_id": principal.key_id,
        "use_case": considered.use_case,
        "alias": considered.alias,
        "operation": request.operation if request else "",
        "dialect": request.dialect if request else "",
        "mode": considered.mode,
        "data_class": considered.data_class,
        "clearance": considered.clearance,
        "manifest_digest": snapshot.digest,
        "rules": considered.rules,
        "traceparent": op.traceparent,
        "stream": request.stream if request else False,
        "request_bytes": len(request.body) if request else 0,
    }


_NOT_YET = {
    "session": "", "end_user": "", "release_digest": "", "strategy": "", "attempts": (), "steps": (), "receipts": (),
    "passage_ids": (), "usage": None, "charge_lines": (), "estimated_nano": 0, "held_nano": 0, "charged_nano": 0,
    "overrun_nano": 0, "lease_id": None, "refusal_code": "", "refusal_detail": "", "model": "", "provider": "",
    "source": "", "finish": (), "cut": (), "flags": (), "duration_ns": 0, "first_token_ns": 0, "reply_bytes": 0,
}  # fmt: skip


def drafted(snapshot: Snapshot, op: Op, principal: Principal, considered: Considered, request: Request | None) -> Row:
    """A row with what is known of the sender and of policy's decision; outcome *failed* until something better is known."""
    known = _known(snapshot, op, principal, considered, request)
    return Row(**known, **_NOT_YET, candidates=considered.candidates, outcome=Outcome.FAILED)  # type: ignore[arg-type]


def bodies_of(snapshot: Snapshot, x: Exchange) -> Bodies | None:
    """What was said, up to the manifest's cap for each side; None where bodies are not kept or nothing was read.

    Nor where money or a limit refused it before anything happened: who hammers on a spent budget must not fill the store.
    """
    most = snapshot.bodies.bytes_max
    if (
        not most
        or not hasattr(x, "request")
        or (x.outcome is Outcome.REFUSED and x.refusal.code.startswith("reserve."))
    ):
        return None
    request, reply = x.request.body, b"\n".join(x.received.payloads)
    truncated = len(request) > most or len(reply) > most or x.received.payload_bytes > len(reply)
    return Bodies(request[:most], reply[:most], truncated)


def answer_of(x: Exchange) -> Stored | None:
    """The whole answer, for repeats of the request; None when there is none to keep.

    Whoever left before it came is who repeats: an answer that was drained to its end is kept too.
    """
    received: Received = x.received
    whole = x.outcome is Outcome.SERVED or (x.outcome is Outcome.ABANDONED and received.done)
    if not whole or received.payload_bytes > received.kept_bytes_max or not hasattr(x, "reply"):
        return None
    if x.reply.stream:
        return Stored(x.op.id, 200, "text/event-stream", _encode(received.payloads))
    return Stored(x.op.id, 200, "application/json", b"".join(received.payloads))


def ended(x: Exchange, duration_ns: int) -> Ended:
    """What logs and metrics hear of its row."""
    usage, charge = x.received.usage, getattr(x, "charge", None)
    return Ended(
        exchange_id=x.op.id_text,
        tenant=x.principal.tenant,
        use_case=_considered(x).use_case,
        model=x.reply.model.name if hasattr(x, "reply") else "",
        outcome=x.outcome,
        code=x.refusal.code if hasattr(x, "refusal") else "",
        duration_ms=duration_ns / 1e6,
        first_token_ms=x.received.first_ns / 1e6,
        input_tokens=usage.input if usage else 0,
        output_tokens=usage.output if usage else 0,
        charged_nano=charge.amount_nano if charge else 0,
        overrun_nano=charge.overrun_nano if charge else 0,
    )


def _steps(x: Exchange) -> tuple[Step, ...]:
    """What each stage took, and the delivery, which is no single stage's; tokens and cost stand where they arose."""
    steps, charge, received = x.op.steps(), getattr(x, "charge", None), x.received
    if received.first_ns:
        steps.insert(
            -1, Step("deliver", received.first_ns, received.last_ns - received.first_ns)
        )  # then it was settled
    if charge is not None:
        for place in range(len(steps) - 1, -1, -1):
            step = steps[place]
            if step.stage == "call":
                steps[place] = Step("call", step.start_ns, step.duration_ns, charge.tokens, charge.amount_nano)
                break
    return tuple(steps)


def _told(refusal: Refusal) -> str:
    """What the client read, with its facts (which level, which limit), and what only the log and the record may know."""
    return f"{refusal.message} [{refusal.detail}]" if refusal.detail else refusal.message


def _considered(x: Exchange) -> Considered:
    if hasattr(x, "refusal") and isinstance(x.refusal.considered, Considered):
        return x.refusal.considered
    if hasattr(x, "grant"):
        return x.grant.considered
    return replace(_UNDECIDED, use_case=x.request.model) if hasattr(x, "request") else _UNDECIDED


def _receipts(x: Exchange) -> tuple[Receipt, ...]:
    """Of every check in the path, as far as the request came."""
    if hasattr(x, "hit"):
        return x.prompt.receipt, x.passages.receipt, *x.screened.receipts, x.hit.receipt
    found: list[Receipt] = []
    if hasattr(x, "prompt"):
        found.append(x.prompt.receipt)
    if hasattr(x, "passages"):
        found.append(x.passages.receipt)
    if hasattr(x, "screened"):
        found.extend(x.screened.receipts)
    return tuple(found)


def _source(x: Exchange) -> str:
    if hasattr(x, "replay_of"):
        return Source.REPLAY
    return x.reply.source if hasattr(x, "reply") else ""


def _flags(x: Exchange, bodies: Bodies | None, *, left: bool) -> tuple[str, ...]:
    """Short words for what an auditor would want to filter by."""
    charge, received = getattr(x, "charge", None), x.received
    flags: list[str] = []
    if charge is not None:
        for line in charge.lines:
            if line.basis in _BASES and _BASES[line.basis] not in flags:
                flags.append(_BASES[line.basis])
        if charge.overrun_nano > 0:
            flags.append("overrun")
    if received.usage_refused:
        flags.append("usage_refused")
    if received.usage is not None and received.usage.output == 0 and received.text_chars > 0:
        flags.append("usage_implausible")
    if left:
        flags += ("drained", "client_left") if received.done else ("client_left",)
    if received.opaque:
        flags.append("opaque_content")
    if bodies is not None and bodies.truncated:
        flags.append("body_truncated")
    if hasattr(x, "grant") and x.grant.mode is Mode.OBSERVE:
        flags.append("mode_observed")
    if hasattr(x, "hold") and x.hold.uncovered:
        flags += downgraded(x.hold.uncovered)
    if hasattr(x, "replay_of"):
        flags.append(f"replay_of:{x.replay_of}")
    return tuple(flags)


_BASES = {Basis.COUNTED: "usage_counted", Basis.CEILING: "usage_ceiling"}


def downgraded(uncovered: Mapping[str, str]) -> tuple[str, ...]:
    """A flag for every level whose budget had room for some of the models only."""
    return tuple(f"downgraded:{level}" for level in dict.fromkeys(uncovered.values()))
