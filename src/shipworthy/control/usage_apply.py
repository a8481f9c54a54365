"""Corrections from an export that names our exchanges: afterwards each comes to what the provider says of it.

What an exchange cost at other providers stays. A presumed one, of which no provider is known, becomes this provider's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import UUID

from msgspec import Struct

from shipworthy.control.access import act_of
from shipworthy.control.corrections import (
    Why,
    act_for,
    checked,
    correction_of,
    require_operator,
    why_not,
)
from shipworthy.control.figures import rounded_nano
from shipworthy.control.sweep import PRESUMED
from shipworthy.control.usage_compare import UsageAsked
from shipworthy.control.usage_file import Request, UsageFile
from shipworthy.control.usage_formats import Column
from shipworthy.control.usage_names import Named
from shipworthy.control.wording import usd
from shipworthy.model.correction import LINES_MAX, Correction, CorrectionLine, Verdict, token_of
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Row
from shipworthy.model.money import ChargeLine, Component, Price, Usage
from shipworthy.model.op import Op
from shipworthy.model.policy import Snapshot
from shipworthy.model.reading import EVERY_TENANT, Authority
from shipworthy.model.route import Model
from shipworthy.ports import AdminRecorder, Corrections, Exchanges

NAMED_MAX = 50
Key = tuple[str, str, Component]


class ApplyAsked(Struct, frozen=True, kw_only=True):
    """Why, and what says so; "" = the file."""

    reason: str
    source: str


class NotApplied(Struct, frozen=True, kw_only=True):
    """An exchange of the file that was left as it is, and why."""

    exchange_id: UUID
    reason: str


class AppliedReport(Struct, frozen=True, kw_only=True):
    """What became of the exchanges that a file names. ``not_applied`` holds the first of ``failed``."""

    exchanges: int
    agreed: int
    corrected: int
    known: int  # corrected by this very file before
    failed: int
    usd: str
    nano: int
    not_applied: tuple[NotApplied, ...]


async def apply_usage(
    op: Op,
    exchanges: Exchanges,
    corrections: Corrections,
    acts: AdminRecorder,
    snapshot: Snapshot,
    holder: Authority,
    file: UsageFile,
    names: Mapping[str, Named],
    asked: UsageAsked,
    wanted: ApplyAsked,
    progress: Callable[[int], None] = lambda _: None,
) -> AppliedReport:
    """Corrects every exchange that the file names and that does not come to what it says. Raises Refusal admin.*.

    Each correction is one transaction: what was done stays when the rest fails, and the same file again goes on from there.
    """
    require_operator(holder, "apply a provider's export")
    if not file.has(Column.EXCHANGE):
        reason = "no column names our exchanges; say which with --columns exchange_id=…"
        raise Refusal("admin.invalid", name=file.name, reason=reason)
    reason, source = checked(wanted.reason, wanted.source or f"{file.name} {file.sha256[:16]}")
    why = Why(reason=reason, source=source, provider=asked.provider)
    facts = {"provider": asked.provider, "file": file.name, "sha256": file.sha256, "because": reason}
    await acts.act(act_of(op, holder, "cost.apply", EVERY_TENANT, "usage", facts))
    tally, not_applied, total_nano = Counter[str](), list[NotApplied](), 0
    teller = Teller(file, names, asked.provider, snapshot)
    for number, (exchange_id, requests) in enumerate(file.requests.items(), 1):
        became, nano = await _settle(op, exchanges, corrections, holder, teller, why, exchange_id, requests)
        tally[became if became in ("agreed", "corrected", "known") else "failed"] += 1
        total_nano += nano
        if became not in ("agreed", "corrected", "known") and len(not_applied) < NAMED_MAX:
            not_applied.append(NotApplied(exchange_id=exchange_id, reason=became))
        progress(number)
    return AppliedReport(
        exchanges=len(file.requests),
        agreed=tally["agreed"],
        corrected=tally["corrected"],
        known=tally["known"],
        failed=tally["failed"],
        usd=usd(total_nano),
        nano=total_nano,
        not_applied=tuple(not_applied),
    )


async def _settle(
    op: Op,
    exchanges: Exchanges,
    corrections: Corrections,
    holder: Authority,
    teller: Teller,
    why: Why,
    exchange_id: UUID,
    requests: Sequence[Request],
) -> tuple[str, int]:
    """What became of one exchange, and by how much it was corrected."""
    row = await exchanges.get(EVERY_TENANT, exchange_id)
    if row is None:
        return "we have no such exchange", 0
    made = await corrections.of(row.tenant, (row.id,))
    try:
        lines = teller.difference(row, made, requests)
    except KeyError as unpriced:
        return f"no price is known of {unpriced.args[0]}; export it with its cost", 0
    nano = sum(line.amount_nano for line in lines)
    if not nano:
        return "agreed", 0
    if len(lines) > LINES_MAX:
        return f"more than {LINES_MAX} lines", 0
    expected = row.charged_nano + sum(each.nano for each in made)
    token = token_of("usage", teller.file.sha256, exchange_id)
    correction = correction_of(op, holder, row, why, nano, lines, token)
    applied = await corrections.apply(correction, expected, act_for(op, holder, correction))
    match applied.verdict:
        case Verdict.APPLIED:
            return "corrected", nano
        case Verdict.KNOWN:
            return "known", 0
        case _:
            return why_not(applied), 0


class Teller:
    """What an exchange should have cost, by a provider's own count of its requests."""

    def __init__(self, file: UsageFile, names: Mapping[str, Named], provider: str, snapshot: Snapshot) -> None:
        self.file = file
        self._names = names
        self._provider = provider
        self._models = {model.upstream: model for model in snapshot.models.values() if model.provider.name == provider}

    def difference(
        self, row: Row, made: Sequence[Correction], requests: Sequence[Request]
    ) -> tuple[CorrectionLine, ...]:
        """What must be added to the row and its corrections. Raises KeyError with a model that has no price."""
        quantities, amounts = Counter[Key](), Counter[Key]()
        for request in requests:
            for key, quantity, amount in self._theirs(row, request):
                quantities[key] += quantity
                amounts[key] += amount
        for key, quantity, amount in (*self._ours(row), *self._corrected(row, made)):
            quantities[key] -= quantity
            amounts[key] -= amount
        keys = sorted(key for key in quantities.keys() | amounts.keys() if quantities[key] or amounts[key])
        return tuple(CorrectionLine(*key, quantities[key], amounts[key]) for key in keys)

    def _theirs(self, row: Row, request: Request) -> Iterable[tuple[Key, int, int]]:
        upstream = self._names[request.model].upstream
        model = self._model_name(row, upstream)
        usage = self._usage(row, request)
        if not self.file.has(Column.COST):
            for line in self._price(row, upstream).lines(usage, model, 0):
                yield (model, upstream, line.component), line.quantity, line.amount_nano
            return
        for component, quantity in usage.quantities():
            yield (model, upstream, component), quantity, 0
        yield (model, upstream, Component.REQUEST), 0, rounded_nano(request.figures.cost_usd)

    def _ours(self, row: Row) -> Iterable[tuple[Key, int, int]]:
        upstream_of = {each.number: each.upstream for each in row.attempts if each.provider == self._provider}
        for line in self._lines(row):
            key = (line.model, upstream_of.get(line.attempt, ""), line.component)
            if self.file.has(Column.COST):  # amounts are compared as one sum: theirs is one
                yield key, line.quantity, 0
                yield (line.model, key[1], Component.REQUEST), 0, line.amount_nano
            else:
                yield key, line.quantity, line.amount_nano

    def _corrected(self, row: Row, made: Sequence[Correction]) -> Iterable[tuple[Key, int, int]]:
        for each in made:
            if each.provider in (self._provider, "") or PRESUMED in row.flags:
                for line in each.lines:
                    yield (line.model, line.upstream, line.component), line.quantity, line.amount_nano

    def _lines(self, row: Row) -> list[ChargeLine]:
        """The charge lines of this provider's attempts; of a presumed exchange all of them."""
        if PRESUMED in row.flags:
            return list(row.charge_lines)
        numbers = {each.number for each in row.attempts if each.provider == self._provider}
        return [line for line in row.charge_lines if line.attempt in numbers]

    def _usage(self, row: Row, request: Request) -> Usage:
        """Theirs; what their export does not tell apart is as we saw it, as far as it fits."""
        seen = Counter[Component]()
        if PRESUMED not in row.flags:
            for line in self._lines(row):
                seen[line.component] += line.quantity
        figures = request.figures
        cached = figures.cached_tokens if self.file.has(Column.CACHED) else seen[Component.CACHE_READ]
        room_in, room_out = figures.input_tokens, figures.output_tokens
        cached = min(cached, room_in)
        written = min(seen[Component.CACHE_WRITE], room_in - cached)
        heard = min(seen[Component.INPUT_AUDIO], room_in - cached - written)
        reasoned = min(seen[Component.REASONING], room_out)
        spoken = min(seen[Component.OUTPUT_AUDIO], room_out - reasoned)
        return Usage(
            input=room_in,
            output=room_out,
            cache_read=cached,
            cache_write=written,
            reasoning=reasoned,
            input_audio=heard,
            output_audio=spoken,
            images=seen[Component.IMAGE],
        )

    def _price(self, row: Row, upstream: str) -> Price:
        """As the row was priced; what it did not use, as the manifest in force prices the model."""
        model = self._models.get(upstream)
        units = dict(model.price.unit_pico) if model else {}
        numbers = {
            each.number for each in row.attempts if each.provider == self._provider and each.upstream == upstream
        }
        units |= {line.component: line.unit_price_pico for line in row.charge_lines if line.attempt in numbers}
        if not units:
            raise KeyError(upstream)
        return Price(units, "the row's own")

    def _model_name(self, row: Row, upstream: str) -> str:
        named = [each.model for each in row.attempts if each.provider == self._provider and each.upstream == upstream]
        model: Model | None = self._models.get(upstream)
        return named[0] if named else model.name if model else ""
