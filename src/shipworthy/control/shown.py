"""What the control plane shows: one set of shapes for the admin API, the console and ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from shipworthy.control.audit import Section, explain
from shipworthy.control.wording import moment, usd
from shipworthy.model.correction import Correction, CorrectionLine
from shipworthy.model.exchange import Bodies, Row
from shipworthy.model.reading import Page
from shipworthy.ports import ServiceKey


class ExchangeLine(Struct, frozen=True, kw_only=True):
    """An exchange in a list."""

    id: UUID
    arrived: str
    arrived_unix_ns: int
    tenant: str
    team: str
    use_case: str
    alias: str
    subject: str
    actor: str
    key_id: str
    model: str
    provider: str
    source: str
    data_class: str
    mode: str
    stream: bool
    outcome: str
    refusal_code: str
    duration_ns: int
    first_token_ns: int
    input_tokens: int
    output_tokens: int
    charged_usd: str
    charged_nano: int
    overrun_nano: int


class ExchangePage(Struct, frozen=True, kw_only=True):
    """Exchanges, newest first. ``next`` is the cursor of the next page, null at the end."""

    exchanges: tuple[ExchangeLine, ...]
    next: str | None


class ExchangeShown(Struct, frozen=True, kw_only=True):
    """The whole row, what was corrected since, and the decision in plain words. ``comes_to``: the charge, corrected."""

    exchange: Row
    charged_usd: str
    corrections: tuple[CorrectionShown, ...]
    comes_to_usd: str
    comes_to_nano: int
    explained: tuple[Section, ...]


class CorrectionShown(Struct, frozen=True, kw_only=True):
    """One correction, final. ``usd`` is signed."""

    id: UUID
    exchange_id: UUID
    tenant: str
    at: str
    actor: str
    reason: str
    source: str
    provider: str
    usd: str
    nano: int
    lines: tuple[CorrectionLine, ...]
    levels: tuple[str, ...]


class BodiesShown(Struct, frozen=True, kw_only=True):
    """What was said. ``kept`` is false when nothing was kept, or no longer is."""

    id: UUID
    kept: bool
    truncated: bool
    request: str
    reply: str


class KeyShown(Struct, frozen=True, kw_only=True):
    """A service key as it may be shown: never the key itself."""

    id: str
    tenant: str
    name: str
    role: str
    use_cases: tuple[str, ...]
    state: str  # active | expired | revoked
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyMade(Struct, frozen=True, kw_only=True):
    """A new key. ``secret`` is the whole key: it is shown this once and kept nowhere."""

    key: KeyShown
    secret: str


class KeysShown(Struct, frozen=True, kw_only=True):
    keys: tuple[KeyShown, ...]


def exchange_line(row: Row) -> ExchangeLine:
    return ExchangeLine(
        id=row.id,
        arrived=moment(row.arrived_unix_ns),
        arrived_unix_ns=row.arrived_unix_ns,
        tenant=row.tenant,
        team=row.team,
        use_case=row.use_case,
        alias=row.alias,
        subject=row.subject,
        actor=row.actor,
        key_id=row.key_id,
        model=row.model,
        provider=row.provider,
        source=row.source,
        data_class=row.data_class,
        mode=row.mode,
        stream=row.stream,
        outcome=row.outcome.value,
        refusal_code=row.refusal_code,
        duration_ns=row.duration_ns,
        first_token_ns=row.first_token_ns,
        input_tokens=row.usage.input if row.usage else 0,
        output_tokens=row.usage.output if row.usage else 0,
        charged_usd=usd(row.charged_nano),
        charged_nano=row.charged_nano,
        overrun_nano=row.overrun_nano,
    )


def exchange_page(page: Page) -> ExchangePage:
    following = page.after.cursor() if page.after is not None else None
    return ExchangePage(exchanges=tuple(map(exchange_line, page.rows)), next=following)


def exchange_shown(row: Row, corrections: Sequence[Correction]) -> ExchangeShown:
    comes_to = row.charged_nano + sum(each.nano for each in corrections)
    return ExchangeShown(
        exchange=row,
        charged_usd=usd(row.charged_nano),
        corrections=tuple(map(correction_shown, corrections)),
        comes_to_usd=usd(comes_to),
        comes_to_nano=comes_to,
        explained=explain(row, corrections),
    )


def correction_shown(made: Correction) -> CorrectionShown:
    return CorrectionShown(
        id=made.id,
        exchange_id=made.exchange_id,
        tenant=made.tenant,
        at=moment(made.at_unix_ns),
        actor=made.actor,
        reason=made.reason,
        source=made.source,
        provider=made.provider,
        usd=usd(made.nano),
        nano=made.nano,
        lines=made.lines,
        levels=made.levels,
    )


def bodies_shown(exchange_id: UUID, bodies: Bodies | None) -> BodiesShown:
    """Bodies as text; what is no UTF-8 is replaced, for it may be cut in the middle of a letter."""
    said = bodies or Bodies(b"", b"", False)
    return BodiesShown(
        id=exchange_id,
        kept=bodies is not None,
        truncated=said.truncated,
        request=said.request.decode("utf-8", "replace"),
        reply=said.reply.decode("utf-8", "replace"),
    )


def key_shown(key: ServiceKey, now_unix_ns: int) -> KeyShown:
    if key.revoked_at is not None:
        state = "revoked"
    elif key.expires_at is not None and key.expires_at.timestamp() * 1e9 <= now_unix_ns:
        state = "expired"
    else:
        state = "active"
    return KeyShown(
        id=key.id,
        tenant=key.tenant,
        name=key.name,
        role=key.role,
        use_cases=key.use_cases,
        state=state,
        created_at=key.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )
