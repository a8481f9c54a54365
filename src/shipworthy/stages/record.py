"""record: one row per exchange, final. What the row says stands in ``row``.

A request that was refused before its sender was known leaves no row: a counter and a line in the bounded security log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
from msgspec.structs import replace

from shipworthy.model.chat import Request
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.exchange import Exchange, Outcome, Received
from shipworthy.model.identity import Grant
from shipworthy.model.observation import Ended, Refused, StoreDegraded
from shipworthy.model.op import Op
from shipworthy.model.policy import Snapshot
from shipworthy.ports import Entry, Ledger, Recorder, Repeats, Stored
from shipworthy.stages.dedupe import scope_of
from shipworthy.stages.row import considered_of, downgraded, drafted, kept_at_least, kept_of

LATER_BYTES_MAX = 65_536
"""Of a request whose row is made later: what it was parsed into lives until then."""

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
    """What is recorded of an ended exchange. Of one that was served it is made later, by who writes it, unless it is so
    large that what it is made of had better go at once. Under ``strict`` a defect there still refuses the answer."""
    hold, charge = getattr(x, "hold", None), getattr(x, "charge", None)
    most, left = snapshot.bodies.bytes_max, x.op.left
    if x.outcome is Outcome.SERVED and len(x.request.body) <= LATER_BYTES_MAX:
        size = min(len(x.request.body), most) + min(x.received.payload_bytes, most)
        make = kept_of if snapshot.strict else kept_at_least
        return Entry.later(x.op.id, x.outcome, size, hold, charge, partial(make, snapshot, x, duration_ns, left=left))
    row, bodies = kept_of(snapshot, x, duration_ns, left=left)
    return Entry(row, bodies, hold, charge)


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
        use_case=considered_of(x).use_case,
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
