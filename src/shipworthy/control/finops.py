"""What was spent, over any period in any zone, told apart by a dimension. Every total equals the rows to the nano-dollar."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from shipworthy.control.access import act_of, within
from shipworthy.control.wording import usd
from shipworthy.model.errors import Refusal
from shipworthy.model.money import Period, period_bounds
from shipworthy.model.op import Op
from shipworthy.model.reading import EVERY_TENANT, Authority, By, CostAsked, CostLine
from shipworthy.ports import AdminRecorder, Exchanges

AGO = re.compile(r"(\d{1,5})([hdw])")
AGO_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
YEAR_MIN, YEAR_MAX = 1971, 2199  # nanoseconds since 1970 stay within 64 bits
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


class Span(Struct, frozen=True):
    """A stretch of time: ``since`` inclusive, ``until`` exclusive, both aware in the zone that was asked for."""

    since: datetime
    until: datetime

    @property
    def since_unix_ns(self) -> int:
        return unix_ns(self.since)

    @property
    def until_unix_ns(self) -> int:
        return unix_ns(self.until)


class CostReport(Struct, frozen=True, kw_only=True):
    """Lines, dearest first, and their total; in exact dollars as text and in nano-dollars as integers."""

    by: By
    zone: str
    since: str
    until: str
    lines: tuple[CostShown, ...]
    total: CostShown


class CostShown(Struct, frozen=True, kw_only=True):
    """One line of the report, corrections included. Names are as recorded: whoever shows them escapes them."""

    tenant: str
    name: str
    exchanges: int
    served: int
    refused: int
    cut: int
    failed: int
    abandoned: int
    input_tokens: int
    output_tokens: int
    charged_usd: str
    overrun_usd: str
    corrected_usd: str
    charged_nano: int
    overrun_nano: int
    corrected_nano: int


async def cost_report(
    op: Op,
    exchanges: Exchanges,
    acts: AdminRecorder,
    holder: Authority,
    by: By,
    span: Span,
    zone: str,
    tenant: str = "",
) -> CostReport:
    """The report that ``holder`` may see; the read is recorded before it is shown."""
    scope = within(holder, tenant)
    facts = {"by": by.value, "since": span.since.isoformat(), "until": span.until.isoformat()}
    await acts.act(act_of(op, holder, "cost.read", scope, "cost", facts))
    asked = CostAsked(by=by, since_unix_ns=span.since_unix_ns, until_unix_ns=span.until_unix_ns)
    lines = sorted(await exchanges.cost(scope, asked), key=lambda line: (-line.charged_nano, line.tenant, line.name))
    everyone = "" if scope == EVERY_TENANT else scope
    return CostReport(
        by=by,
        zone=zone,
        since=span.since.isoformat(),
        until=span.until.isoformat(),
        lines=tuple(_shown(line) for line in lines),
        total=_shown(total_of(lines, everyone)),
    )


def total_of(lines: Sequence[CostLine], tenant: str) -> CostLine:
    """The sum of all lines."""

    def of(field: str) -> int:
        return sum(getattr(line, field) for line in lines)

    summed = [name for name in CostLine.__struct_fields__ if name not in ("tenant", "name")]
    return CostLine(tenant=tenant, name="total", **{name: of(name) for name in summed})


def as_csv(report: CostReport) -> str:
    """The report for a spreadsheet: RFC 4180, no cell is a formula, money is exact text."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
    columns = CostShown.__struct_fields__
    writer.writerow(("by", "since", "until", *columns))
    for line in report.lines:
        cells = [getattr(line, column) for column in columns]
        writer.writerow((report.by.value, report.since, report.until, *map(_cell, cells)))
    return out.getvalue()


def span_of(since: str, until: str, period: str, zone: ZoneInfo, now: datetime) -> Span:
    """The span that was asked for, on the wall clock of ``zone``. Raises Refusal admin.invalid.

    ``period`` is the running hour, day, week, month or year. ``since`` and ``until`` are a date, a date with time (with or
    without offset), or a time ago such as 36h, 7d, 4w. Nothing said = the running month.
    """
    if period and (since or until):
        raise Refusal("admin.invalid", name="period", reason="it stands alone, without since and until")
    if period or not since:
        wanted = _period(period or "month")
        begin, end = period_bounds(wanted, zone, now)
        if not until:
            return Span(begin.astimezone(zone), end.astimezone(zone))
        since_at = begin.astimezone(zone)
    else:
        since_at = instant("since", since, zone, now)
    until_at = instant("until", until, zone, now) if until else now.astimezone(zone)
    if since_at >= until_at:
        raise Refusal(
            "admin.invalid", name="until", reason=f"{until_at.isoformat()} is not after {since_at.isoformat()}"
        )
    return Span(since_at, until_at)


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that IANA name. Raises Refusal admin.invalid."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError) as unknown:  # not found, a name like a path, a folder's name
        raise Refusal("admin.invalid", name="zone", reason=f"{name!r} is no zone such as Europe/Berlin") from unknown


def instant(name: str, said: str, zone: ZoneInfo, now: datetime) -> datetime:
    """The moment that ``said`` means: a date, a time on ``zone``'s clock, or so long ago. Raises Refusal admin.invalid."""
    ago = AGO.fullmatch(said)
    try:
        at = now - int(ago[1]) * AGO_UNITS[ago[2]] if ago else datetime.fromisoformat(said)
    except ValueError as wrong:
        reason = f"{said!r} is no date (2026-11-01), time (2026-11-01T08:00) or time ago (36h, 7d, 4w)"
        raise Refusal("admin.invalid", name=name, reason=reason) from wrong
    if not YEAR_MIN <= at.year <= YEAR_MAX:
        raise Refusal("admin.invalid", name=name, reason=f"the year {at.year} is not within {YEAR_MIN} to {YEAR_MAX}")
    return at.replace(tzinfo=zone) if at.tzinfo is None else at.astimezone(zone)


def unix_ns(at: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond that a datetime holds."""
    past = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (past.days * 86_400 + past.seconds) * 1_000_000_000 + past.microseconds * 1_000


def _period(name: str) -> Period:
    try:
        return Period(name)
    except ValueError as unknown:
        raise Refusal("admin.invalid", name="period", reason=f"{name!r} is not one of {', '.join(Period)}") from unknown


def _shown(line: CostLine) -> CostShown:
    fields = {name: getattr(line, name) for name in CostLine.__struct_fields__}
    return CostShown(
        charged_usd=usd(line.charged_nano),
        overrun_usd=usd(line.overrun_nano),
        corrected_usd=usd(line.corrected_nano),
        **fields,
    )


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula is led by an apostrophe, so that it stays text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
