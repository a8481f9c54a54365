"""The record, its acts and its reads, in memory: passes the same contract suites as the store's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from uuid import UUID

from msgspec.structs import replace

from shipworthy.model.correction import Correction
from shipworthy.model.exchange import Bodies, Row
from shipworthy.model.money import Component
from shipworthy.model.reading import EVERY_TENANT, PAGE_ROWS_MAX, By, CostAsked, CostLine, Page, Place, Wanted
from shipworthy.ports import AdminAct

INPUT = frozenset(
    {Component.INPUT, Component.CACHE_READ, Component.CACHE_WRITE, Component.INPUT_AUDIO},
)
OUTPUT = frozenset({Component.OUTPUT, Component.REASONING, Component.OUTPUT_AUDIO})


class MemoryActs:
    """An AdminRecorder that a test can read."""

    def __init__(self) -> None:
        self.acts: list[AdminAct] = []

    async def act(self, act: AdminAct) -> None:
        self.acts.append(act)


class MemoryExchanges:
    """Exchanges over a list of rows."""

    def __init__(self, *rows: Row) -> None:
        self.rows = list(rows)
        self.said: dict[UUID, Bodies] = {}
        self.corrections: list[Correction] = []  # what MemoryCorrections has made

    async def page(self, scope: str, wanted: Wanted, after: Place | None, limit: int) -> Page:
        limit = max(1, min(limit, PAGE_ROWS_MAX))
        found = [row for row in self._seen(scope) if _matches(row, wanted) and (not after or Place.of(row) < after)]
        found.sort(key=Place.of, reverse=True)
        return Page(tuple(found[:limit]), Place.of(found[limit - 1]) if len(found) > limit else None)

    async def get(self, scope: str, exchange_id: UUID) -> Row | None:
        return next((row for row in self._seen(scope) if row.id == exchange_id), None)

    async def bodies(self, scope: str, exchange_id: UUID) -> Bodies | None:
        row = await self.get(scope, exchange_id)
        return None if row is None else self.said.get(exchange_id)

    async def cost(self, scope: str, asked: CostAsked) -> Sequence[CostLine]:
        lines: dict[tuple[str, str], CostLine] = {}
        wanted = Wanted(tenant=asked.tenant, since_unix_ns=asked.since_unix_ns, until_unix_ns=asked.until_unix_ns)
        for row in self._seen(scope):
            if _matches(row, wanted):
                made = [each for each in self.corrections if each.exchange_id == row.id]
                for part in (*_parts(row, asked.by), *_corrected(row, made, asked.by)):
                    known = lines.get((part.tenant, part.name))
                    lines[part.tenant, part.name] = part if known is None else _sum(known, part)
        return list(lines.values())

    def _seen(self, scope: str) -> Iterator[Row]:
        if not scope:
            raise ValueError("an empty scope is an error, never everything")
        return (row for row in self.rows if scope in (EVERY_TENANT, row.tenant))


def _matches(row: Row, wanted: Wanted) -> bool:
    same = (
        (wanted.tenant, row.tenant),
        (wanted.team, row.team),
        (wanted.use_case, row.use_case),
        (wanted.model, row.model),
        (wanted.outcome, row.outcome.value),
        (wanted.code, row.refusal_code),
    )
    return (
        all(not asked or asked == is_ for asked, is_ in same)
        and (not wanted.principal or wanted.principal in (row.subject, row.actor))
        and (not wanted.since_unix_ns or row.arrived_unix_ns >= wanted.since_unix_ns)
        and (not wanted.until_unix_ns or row.arrived_unix_ns < wanted.until_unix_ns)
    )


def _parts(row: Row, by: By) -> Iterator[CostLine]:
    """What one row adds: counts at its own name, money and tokens where the charge lines say."""
    name = _name(row, by)
    counts = {row.outcome.value: 1}
    yield CostLine(tenant=row.tenant, name=name, exchanges=1, overrun_nano=row.overrun_nano, **counts)
    money: defaultdict[str, int] = defaultdict(int)
    for line in row.charge_lines:
        at = line.model if by is By.MODEL else name
        money[at] += line.amount_nano
        yield CostLine(
            tenant=row.tenant,
            name=at,
            input_tokens=line.quantity if line.component in INPUT else 0,
            output_tokens=line.quantity if line.component in OUTPUT else 0,
        )
    money[name] += row.charged_nano - sum(money.values())  # 0 unless the lines and the charge disagree
    for at, nano in money.items():
        yield CostLine(tenant=row.tenant, name=at, charged_nano=nano)


def _corrected(row: Row, made: Sequence[Correction], by: By) -> Iterator[CostLine]:
    """What corrections of a row add, where their lines say."""
    for line in (line for each in made for line in each.lines):
        yield CostLine(
            tenant=row.tenant,
            name=line.model if by is By.MODEL else _name(row, by),
            input_tokens=line.quantity if line.component in INPUT else 0,
            output_tokens=line.quantity if line.component in OUTPUT else 0,
            charged_nano=line.amount_nano,
            corrected_nano=line.amount_nano,
        )


def _name(row: Row, by: By) -> str:
    return {
        By.TENANT: row.tenant,
        By.TEAM: row.team,
        By.USE_CASE: row.use_case,
        By.MODEL: row.model,
        By.PRINCIPAL: row.subject,
    }[by]


def _sum(one: CostLine, other: CostLine) -> CostLine:
    summed = [field for field in CostLine.__struct_fields__ if field not in ("tenant", "name")]
    return replace(one, **{field: getattr(one, field) + getattr(other, field) for field in summed})
