"""Corrections of rows in memory, and the books over them: what a control plane without a store works with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from shipworthy.kit.memory_record import MemoryActs, MemoryExchanges
from shipworthy.model.books import Balance, Presumed, Used
from shipworthy.model.correction import Applied, Correction, CorrectionLine, Verdict
from shipworthy.model.exchange import Row
from shipworthy.model.money import PICO_PER_NANO, Basis, ChargeLine, Component
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.model.route import Attempt
from shipworthy.ports import CORRECTIONS_MAX, AdminAct

DAY_NS = 86_400_000_000_000
FIRST_DAY = date(1970, 1, 1)
AGREED = Balance(
    counters=0, paces=0, exchanges=0, charged_nano=0, corrections=0, holds=0, leases=0, unlevelled=0, unlevelled_nano=0,
    differences=(), more=False,
)  # fmt: skip


class MemoryCorrections:
    """ports.Corrections over a list of rows. There are no counters, so that no verdict is *short*."""

    def __init__(self, exchanges: MemoryExchanges, acts: MemoryActs) -> None:
        self.made = exchanges.corrections
        self._exchanges = exchanges
        self._acts = acts

    async def of(self, scope: str, exchange_ids: Sequence[UUID]) -> Sequence[Correction]:
        if not scope:
            raise ValueError("an empty scope is an error, never everything")
        seen = [each for each in self.made if scope in (EVERY_TENANT, each.tenant) and each.exchange_id in exchange_ids]
        return sorted(seen, key=lambda each: (each.at_unix_ns, each.id))[:CORRECTIONS_MAX]

    async def apply(self, correction: Correction, expected_nano: int | None, act: AdminAct) -> Applied:
        row = await self._exchanges.get(correction.tenant, correction.exchange_id)
        if row is None:
            return Applied(Verdict.GONE, 0, ())
        comes_to = row.charged_nano + sum(each.nano for each in self.made if each.exchange_id == row.id)
        if any((each.tenant, each.token) == (correction.tenant, correction.token) for each in self.made):
            return Applied(Verdict.KNOWN, comes_to, ())
        if expected_nano is not None and expected_nano != comes_to:
            return Applied(Verdict.MOVED, comes_to, ())
        if comes_to + correction.nano < 0:
            return Applied(Verdict.NEGATIVE, comes_to, ())
        self.made.append(correction)
        await self._acts.act(act)
        return Applied(Verdict.APPLIED, comes_to + correction.nano, ())


class MemoryBooks:
    """ports.Books over a list of rows. The balance is what the test says: there are no counters to compare."""

    def __init__(self, exchanges: MemoryExchanges, corrections: MemoryCorrections) -> None:
        self.says = AGREED
        self._exchanges = exchanges
        self._corrections = corrections

    async def balance(self, tenant: str, since: datetime | None, rows_since: datetime, limit: int) -> Balance:
        return replace(self.says, differences=self.says.differences[:limit], more=len(self.says.differences) > limit)

    async def used(self, provider: str, first: date, last: date) -> Sequence[Used]:
        found: dict[tuple[date, str], Used] = {}
        for part in self._parts(provider):
            if first <= part.day <= last:
                known = found.get((part.day, part.upstream))
                found[part.day, part.upstream] = part if known is None else _sum(known, part)
        return [found[key] for key in sorted(found)]

    async def presumed(self, first: date, last: date) -> Sequence[Presumed]:
        days: dict[date, list[int]] = defaultdict(list)
        corrected = {each.exchange_id for each in self._corrections.made}
        for row in self._exchanges.rows:
            day = _day(row.arrived_unix_ns)
            if "presumed" in row.flags and row.id not in corrected and first <= day <= last:
                days[day].append(row.charged_nano)
        return [Presumed(day=day, exchanges=len(days[day]), nano=sum(days[day])) for day in sorted(days)]

    def _parts(self, provider: str) -> Iterator[Used]:
        rows = {row.id: row for row in self._exchanges.rows}
        for row in rows.values():
            for attempt in row.attempts:
                lines = [line for line in row.charge_lines if line.attempt == attempt.number]
                if attempt.provider == provider and (lines or attempt.first_token_ns):
                    yield _attempted(row, attempt, lines)
        for made in self._corrections.made:
            if made.provider == provider:
                attempted = any(attempt.provider == provider for attempt in rows[made.exchange_id].attempts)
                upstreams = {line.upstream for line in made.lines if line.upstream}
                if not attempted:
                    yield from (Used(day=_day(made.arrived_unix_ns), upstream=each, requests=1) for each in upstreams)
                yield from (_corrected(made, line) for line in made.lines if line.upstream)


def _attempted(row: Row, attempt: Attempt, lines: list[ChargeLine]) -> Used:
    figures = {name: sum(line.quantity for line in lines if _holds(name, line.component)) for name in SIDES}
    nano = sum(line.amount_nano for line in lines)
    exact_pico = sum(line.quantity * line.unit_price_pico for line in lines)
    used = Used(
        day=_day(row.arrived_unix_ns + attempt.started_ns),
        upstream=attempt.upstream,
        requests=1,
        nano=nano,
        rounding_pico=nano * PICO_PER_NANO - exact_pico,
        counted=int(any(line.basis is not Basis.REPORTED for line in lines)),
        **figures,
    )
    if not attempt.failure:
        return used
    return replace(
        used,
        failed_requests=1,
        failed_input_tokens=used.input_tokens,
        failed_output_tokens=used.output_tokens,
        failed_nano=nano,
    )


def _corrected(made: Correction, line: CorrectionLine) -> Used:
    figures = {name: line.quantity if _holds(name, line.component) else 0 for name in SIDES}
    return Used(day=_day(made.arrived_unix_ns), upstream=line.upstream, nano=line.amount_nano, **figures)


SIDES = ("input_tokens", "cached_tokens", "output_tokens")


def _holds(name: str, component: Component) -> bool:
    match name:
        case "input_tokens":
            return component.is_input
        case "cached_tokens":
            return component is Component.CACHE_READ
        case _:
            return component.is_output


def _sum(one: Used, other: Used) -> Used:
    figures = Used.__struct_fields__[2:]
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in figures})


def _day(unix_ns: int) -> date:
    return FIRST_DAY + timedelta(days=unix_ns // DAY_NS)
