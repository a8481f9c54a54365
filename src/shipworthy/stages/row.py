"""The row of an exchange, and the bodies beside it. Everything they say is read off the exchange here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from shipworthy.model.chat import Request, Source
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Bodies, Exchange, Outcome, Row
from shipworthy.model.guard import Receipt
from shipworthy.model.identity import Considered, Principal
from shipworthy.model.money import Basis
from shipworthy.model.observation import Failed
from shipworthy.model.op import Op, Step
from shipworthy.model.policy import Mode, Snapshot

DETAIL_CHARS_MAX = 2_000
"""Of a refusal's detail, how much the row keeps."""

_UNDECIDED = Considered()


def kept_of(snapshot: Snapshot, x: Exchange, duration_ns: int, *, left: bool) -> tuple[Row, Bodies | None]:
    """The row of an ended exchange, and what is kept beside it. ``left``: its client had gone by then."""
    bodies = bodies_of(snapshot, x)
    return row_of(snapshot, x, bodies, duration_ns, left=left), bodies


def kept_at_least(snapshot: Snapshot, x: Exchange, duration_ns: int, *, left: bool) -> tuple[Row, Bodies | None]:
    """``kept_of``, for an answer that is given already: a defect there costs the row its details, not its place.

    What is known without them is kept, the charge above all, with the flag ``record_incomplete``; the defect is observed.
    """
    try:
        return kept_of(snapshot, x, duration_ns, left=left)
    except Exception as bug:  # noqa: BLE001 - whatever it is, it is named, and what was charged is recorded
        x.op.observe(Failed.of("record", bug, x.op.id_text))
    row = drafted(snapshot, x.op, x.principal, x.grant.considered, x.request)
    said = {"outcome": x.outcome, "session": x.session, "duration_ns": duration_ns, "flags": ("record_incomplete",)}
    return replace(row, **said, **_money(x)), None


def row_of(snapshot: Snapshot, x: Exchange, bodies: Bodies | None, duration_ns: int, *, left: bool) -> Row:
    """The draft, and how it went on."""
    route, refusal = getattr(x, "route", None), getattr(x, "refusal", None)
    reply, fitted = getattr(x, "reply", None), getattr(x, "fitted", None)
    considered = considered_of(x)
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
        **_money(x),
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


def _money(x: Exchange) -> dict[str, Any]:
    """What was set aside, and what was charged for what."""
    hold, charge = getattr(x, "hold", None), getattr(x, "charge", None)
    return {
        "estimated_nano": hold.estimated_nano if hold else 0,
        "held_nano": hold.estimate.amount_nano if hold else 0,
        "lease_id": hold.lease_id if hold else None,
        "charge_lines": charge.lines if charge else (),
        "charged_nano": charge.amount_nano if charge else 0,
        "overrun_nano": charge.overrun_nano if charge else 0,
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


def considered_of(x: Exchange) -> Considered:
    """What policy decided, as far as it came."""
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
