"""Corrections of what an exchange cost: rows beside the row, made by operators only, each with its reason and its act."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from shipworthy.control.access import act_of
from shipworthy.control.figures import nano_of
from shipworthy.control.reading import read_exchange
from shipworthy.control.shown import CorrectionShown, correction_shown
from shipworthy.control.wording import level_of, listed, usd
from shipworthy.model.correction import (
    NANO_MAX,
    REASON_CHARS_MAX,
    SOURCE_CHARS_MAX,
    Applied,
    Correction,
    CorrectionLine,
    Verdict,
    token_of,
)
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Row
from shipworthy.model.money import Component
from shipworthy.model.op import Op, uuid7
from shipworthy.model.reading import Authority
from shipworthy.model.route import Attempt
from shipworthy.ports import AdminAct, AdminRecorder, Corrections, Exchanges


class Corrected(Struct, frozen=True, kw_only=True):
    """A correction and what its exchange comes to now. ``added`` is false when the same was said before."""

    added: bool
    correction: CorrectionShown
    charged_usd: str
    charged_nano: int


class CorrectionAsked(Struct, frozen=True, kw_only=True):
    """By how much, why, and what says so. Without a ``token`` the same thing said twice is one correction."""

    exchange_id: UUID
    nano: int
    reason: str
    source: str = ""
    token: str = ""


async def correct(
    op: Op,
    exchanges: Exchanges,
    corrections: Corrections,
    acts: AdminRecorder,
    holder: Authority,
    asked: CorrectionAsked,
) -> Corrected:
    """Adds one correction. Raises Refusal admin.*; nothing has changed then."""
    require_operator(holder, "correct what an exchange cost")
    reason, source = checked(asked.reason, asked.source)
    if not asked.nano or abs(asked.nano) > NANO_MAX:
        raise Refusal("admin.invalid", name="usd", reason=f"an amount other than 0 is wanted, up to ${usd(NANO_MAX)}")
    row = await read_exchange(op, exchanges, acts, holder, asked.exchange_id)
    attempt = answering(row)
    line = CorrectionLine(
        attempt.model if attempt else row.model, attempt.upstream if attempt else "", Component.REQUEST, 0, asked.nano
    )
    token = asked.token or token_of("correct", asked.exchange_id, asked.nano, reason, source)
    why = Why(reason=reason, source=source, provider=attempt.provider if attempt else "")
    made = correction_of(op, holder, row, why, asked.nano, (line,), token)
    applied = await corrections.apply(made, None, act_for(op, holder, made))
    if applied.verdict not in (Verdict.APPLIED, Verdict.KNOWN):
        raise refused(made, applied)
    for stored in await corrections.of(row.tenant, (row.id,)):
        if stored.token == token:
            return Corrected(
                added=applied.verdict is Verdict.APPLIED,
                correction=correction_shown(stored),
                charged_usd=usd(applied.charged_nano),
                charged_nano=applied.charged_nano,
            )
    raise AssertionError("a correction that was applied, or is known, can be read")


def answering(row: Row) -> Attempt | None:
    """The attempt that a correction of the whole exchange belongs to: the one that answered, else the only one charged."""
    charged = {line.attempt for line in row.charge_lines}
    attempts = [attempt for attempt in row.attempts if attempt.first_token_ns or attempt.number in charged]
    answered = [attempt for attempt in attempts if not attempt.failure]
    if len(answered) == 1:
        return answered[0]
    return attempts[0] if len(attempts) == 1 else None


class Why(Struct, frozen=True, kw_only=True):
    """What stands behind a correction: the reason, what says so, and whose bill it is."""

    reason: str
    source: str
    provider: str


def correction_of(
    op: Op, holder: Authority, row: Row, why: Why, nano: int, lines: tuple[CorrectionLine, ...], token: str
) -> Correction:
    """A correction of ``row``, made now."""
    now_ns = op.clock.unix_ns()
    return Correction(
        id=uuid7(now_ns),
        tenant=row.tenant,
        exchange_id=row.id,
        arrived_unix_ns=row.arrived_unix_ns,
        at_unix_ns=now_ns,
        actor=holder.actor,
        reason=why.reason,
        source=why.source,
        provider=why.provider,
        nano=nano,
        lines=lines,
        token=token,
    )


def act_for(op: Op, holder: Authority, made: Correction) -> AdminAct:
    """The act that is recorded with the correction."""
    facts = {"usd": usd(made.nano), "because": made.reason, "source": made.source, "correction": str(made.id)}
    return act_of(op, holder, "cost.correct", made.tenant, str(made.exchange_id), facts)


def nano_said(said: str) -> int:
    """Signed dollars. Raises Refusal admin.invalid."""
    try:
        return nano_of(said)
    except ValueError as wrong:
        raise Refusal("admin.invalid", name="usd", reason=str(wrong)) from wrong


def require_operator(holder: Authority, what: str) -> None:
    """Raises Refusal admin.operators_only. Whoever administers one tenant could free its own budget."""
    if not holder.everywhere:
        raise Refusal("admin.operators_only", what=what)


def checked(reason: str, source: str) -> tuple[str, str]:
    """Both without blanks around them. Raises Refusal admin.invalid."""
    reason, source = reason.strip(), source.strip()
    for name, text, most in (("because", reason, REASON_CHARS_MAX), ("source", source, SOURCE_CHARS_MAX)):
        if len(text) > most or not text.isprintable():
            raise Refusal("admin.invalid", name=name, reason=f"at most {most} printable letters are wanted")
    if not reason:
        raise Refusal("admin.invalid", name="because", reason="a correction needs its reason")
    return reason, source


def refused(made: Correction, applied: Applied) -> Refusal:
    """Why it was not applied, as its caller reads it."""
    if applied.verdict is Verdict.GONE:
        return Refusal("admin.not_found", what="exchange", id=str(made.exchange_id))
    return Refusal("admin.not_corrected", id=str(made.exchange_id), usd=usd(made.nano), reason=why_not(applied))


def why_not(applied: Applied) -> str:
    """The verdict in words."""
    match applied.verdict:
        case Verdict.GONE:
            return "there is no such exchange"
        case Verdict.MOVED:
            return f"somebody else corrected it meanwhile; it comes to ${usd(applied.charged_nano)} now"
        case Verdict.NEGATIVE:
            return f"it comes to ${usd(applied.charged_nano)}, and nothing costs less than nothing"
        case Verdict.SHORT:
            levels = listed([level_of(level) for level in applied.levels])
            return f"the counter of {levels} holds less than that; `cost reconcile` shows what is wrong with it"
        case other:
            return other.value
