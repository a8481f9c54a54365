"""Ours beside theirs: UTC day by day and model by model, each figure that both know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from shipworthy.control.figures import EXACT, plainly
from shipworthy.control.usage_file import Theirs, UsageFile
from shipworthy.control.usage_formats import Column
from shipworthy.control.usage_names import Named
from shipworthy.control.wording import usd
from shipworthy.model.books import Presumed, Used
from shipworthy.model.money import NANO_PER_USD, PICO_PER_USD

HALF_NANO = Decimal("0.0000000005")
FAILED_REMARK = "it agrees without our failed attempts"


class UsageAsked(Struct, frozen=True, kw_only=True):
    """Whose export it is and how it is to be compared. ``until`` is exclusive; ``names`` are theirs → ours."""

    provider: str
    tolerance_percent: Decimal = Decimal(0)
    since: date | None = None
    until: date | None = None
    names: Mapping[str, str] = {}


class UsageLine(Struct, frozen=True, kw_only=True):
    """One figure of one day and model: exact decimal text, dollars for ``usd``."""

    day: date
    model: str
    what: str
    ours: str
    theirs: str
    difference: str  # theirs − ours
    agrees: bool
    remark: str = ""


class NameShown(Struct, frozen=True, kw_only=True):
    """A name of the file that is not, letter for letter, one of ours."""

    theirs: str
    ours: str
    how: str


class UsageReport(Struct, frozen=True, kw_only=True):
    """The whole comparison. ``failed_*`` is part of ours and may or may not be billed; ``presumed_*`` is part of no line."""

    agree: bool
    provider: str
    file: str
    sha256: str
    format: str
    first: date
    last: date
    tolerance_percent: str
    lines: tuple[UsageLine, ...]
    names: tuple[NameShown, ...]
    failed_requests: int
    failed_usd: str
    counted_requests: int
    presumed_exchanges: int
    presumed_usd: str
    left_out: int
    left_out_usd: str


class Figure(Struct, frozen=True):
    """One figure of ours: as it stands, as it was before it was rounded, and the part of it whose attempts failed."""

    stands: Decimal
    unrounded: Decimal
    failed: Decimal

    def agrees(self, theirs: Decimal, percent: Decimal) -> bool:
        """Whether theirs is ours, or as near as ``percent`` of the greater one; our rounding alone is no difference."""
        gap = abs(EXACT.subtract(theirs, self.stands))
        if not gap or abs(EXACT.subtract(theirs, self.unrounded)) <= (
            HALF_NANO if self.unrounded != self.stands else 0
        ):
            return True
        return EXACT.multiply(gap, Decimal(100)) <= EXACT.multiply(percent, max(abs(theirs), abs(self.stands)))

    def without_failed(self) -> Figure:
        stands, unrounded = EXACT.subtract(self.stands, self.failed), EXACT.subtract(self.unrounded, self.failed)
        return Figure(stands, unrounded, Decimal(0))


def compare(
    file: UsageFile,
    names: Mapping[str, Named],
    used: Sequence[Used],
    presumed: Sequence[Presumed],
    first: date,
    last: date,
    asked: UsageAsked,
) -> UsageReport:
    """Every figure that the file has, of every day from ``first`` to ``last`` and every model of either side."""
    theirs: dict[tuple[date, str], Theirs] = defaultdict(Theirs)
    for (day, name), figures in file.groups.items():
        if first <= day <= last:
            theirs[day, names[name].upstream].add(figures)
    ours = _joined(used, asked.names)
    lines = [
        _line(day, model, column, ours.get((day, model)), theirs.get((day, model)), asked)
        for day, model in sorted(ours.keys() | theirs.keys())
        for column in (Column.REQUESTS, Column.INPUT, Column.CACHED, Column.OUTPUT, Column.COST)
        if file.has(column)
    ]
    return UsageReport(
        agree=all(line.agrees for line in lines),
        provider=asked.provider,
        file=file.name,
        sha256=file.sha256,
        format=file.layout.format,
        first=first,
        last=last,
        tolerance_percent=plainly(asked.tolerance_percent),
        lines=tuple(lines),
        names=tuple(
            NameShown(theirs=name, ours=named.upstream, how=named.how)
            for name, named in sorted(names.items())
            if named.how
        ),
        failed_requests=sum(each.failed_requests for each in used),
        failed_usd=usd(sum(each.failed_nano for each in used)),
        counted_requests=sum(each.counted for each in used),
        presumed_exchanges=sum(each.exchanges for each in presumed),
        presumed_usd=usd(sum(each.nano for each in presumed)),
        left_out=file.left_out,
        left_out_usd=plainly(file.left_out_usd),
    )


def _joined(used: Sequence[Used], names: Mapping[str, str]) -> dict[tuple[date, str], Used]:
    """Ours by day and model; models of ours that the caller says are one are added up."""
    ours: dict[tuple[date, str], Used] = {}
    for each in used:
        model = names.get(each.upstream, each.upstream)
        known = ours.get((each.day, model), Used(day=each.day, upstream=model))
        figures = Used.__struct_fields__[2:]
        ours[each.day, model] = replace(known, **{name: getattr(known, name) + getattr(each, name) for name in figures})
    return ours


def _line(
    day: date, model: str, column: Column, ours: Used | None, theirs: Theirs | None, asked: UsageAsked
) -> UsageLine:
    figure = _figure(ours or Used(day=day, upstream=model), column)
    said = Decimal(getattr(theirs or Theirs(), column.value))
    agrees = figure.agrees(said, asked.tolerance_percent)
    remark = ""
    if not agrees and figure.failed and figure.without_failed().agrees(said, asked.tolerance_percent):
        remark = FAILED_REMARK
    elif not agrees and (ours is None or theirs is None):
        remark = "only they know of it" if ours is None else "only we know of it"
    return UsageLine(
        day=day,
        model=model,
        what="usd" if column is Column.COST else column.value.replace("_", " "),
        ours=plainly(figure.stands),
        theirs=plainly(said),
        difference=plainly(EXACT.subtract(said, figure.stands)),
        agrees=agrees,
        remark=remark,
    )


def _figure(ours: Used, column: Column) -> Figure:
    if column is Column.COST:
        nano, per_usd = Decimal(ours.nano), Decimal(NANO_PER_USD)
        rounding = EXACT.divide(Decimal(ours.rounding_pico), Decimal(PICO_PER_USD))
        stands = EXACT.divide(nano, per_usd)
        return Figure(stands, EXACT.subtract(stands, rounding), EXACT.divide(Decimal(ours.failed_nano), per_usd))
    stands = Decimal(getattr(ours, column.value))
    failed = 0 if column is Column.CACHED else getattr(ours, f"failed_{column.value}")
    return Figure(stands, stands, Decimal(failed))
