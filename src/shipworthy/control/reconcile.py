"""The books checked: counters against what is behind them, and the record against a provider's own export."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from msgspec import Struct

from shipworthy.control.access import act_of, within
from shipworthy.control.corrections import require_operator
from shipworthy.control.usage_compare import UsageAsked, UsageReport, compare
from shipworthy.control.usage_file import UsageFile
from shipworthy.control.usage_names import Named, resolve
from shipworthy.control.wording import usd
from shipworthy.model.books import Balance, Difference, Excuse, Used
from shipworthy.model.errors import Refusal
from shipworthy.model.op import Op
from shipworthy.model.policy import Snapshot
from shipworthy.model.reading import EVERY_TENANT, Authority
from shipworthy.ports import AdminRecorder, Books

DIFFERENCES_MAX = 1_000


class BalanceReport(Struct, frozen=True, kw_only=True):
    """What was compared, and everything that does not agree. ``unchecked`` proves nothing, and says why not."""

    agree: bool
    counters: int
    paces: int
    exchanges: int
    charged_usd: str
    corrections: int
    holds: int
    leases: int
    unlevelled: int
    unlevelled_usd: str
    differences: tuple[DifferenceShown, ...]
    unchecked: tuple[DifferenceShown, ...]
    more: bool


class DifferenceShown(Struct, frozen=True, kw_only=True):
    """A counter beside the sum of what is behind it; money in nano-dollars. ``counter`` null: there is none."""

    tenant: str
    level: str
    what: str
    money: bool
    begins: datetime | None
    ends: datetime | None
    counter: int | None
    behind: int
    difference: int
    exchanges: int
    excuse: str


async def balance(
    op: Op,
    books: Books,
    acts: AdminRecorder,
    snapshot: Snapshot,
    holder: Authority,
    tenant: str = "",
    since: datetime | None = None,
) -> BalanceReport:
    """Every counter that ``holder`` may see against rows, corrections, holds and leases, at one moment."""
    scope = within(holder, tenant)
    facts = {"since": since.isoformat()} if since else {}
    await acts.act(act_of(op, holder, "books.read", scope, "counters", facts))
    now = datetime.fromtimestamp(op.clock.unix_ns() // 1_000_000_000, tz=UTC)
    rows_since = now - timedelta(days=snapshot.retention_days)
    asked = "" if scope == EVERY_TENANT else scope
    return _report(await books.balance(asked, since, rows_since, DIFFERENCES_MAX))


async def usage_report(
    op: Op,
    books: Books,
    acts: AdminRecorder,
    snapshot: Snapshot,
    holder: Authority,
    file: UsageFile,
    asked: UsageAsked,
) -> UsageReport:
    """The record beside a provider's export, day by day and model by model. Raises Refusal admin.*."""
    require_operator(holder, "compare a provider's bill with every tenant's record")
    first, last = _days(file, asked)
    facts = {"provider": asked.provider, "file": file.name, "sha256": file.sha256, "days": f"{first} to {last}"}
    await acts.act(act_of(op, holder, "books.read", EVERY_TENANT, "usage", facts))
    used = await books.used(asked.provider, first, last)
    names = _names(snapshot, file, asked, used)
    presumed = await books.presumed(first, last)
    return compare(file, names, used, presumed, first, last, asked)


async def names_of(books: Books, snapshot: Snapshot, file: UsageFile, asked: UsageAsked) -> dict[str, Named]:
    """Each model of the file as one of ours. Raises Refusal admin.invalid for a provider that nobody knows."""
    return _names(snapshot, file, asked, await books.used(asked.provider, *_days(file, asked)))


def _names(snapshot: Snapshot, file: UsageFile, asked: UsageAsked, used: Sequence[Used]) -> dict[str, Named]:
    ours = {each.upstream for each in used}
    ours |= {model.upstream for model in snapshot.models.values() if model.provider.name == asked.provider}
    if not ours and asked.provider not in snapshot.providers:
        known = ", ".join(sorted(snapshot.providers)) or "none"
        raise Refusal("admin.invalid", name="provider", reason=f"{asked.provider!r} is not one of {known}")
    return resolve(file.models, ours, asked.names)


def _days(file: UsageFile, asked: UsageAsked) -> tuple[date, date]:
    """The UTC days to compare: those of the file, narrowed to what was asked."""
    if file.first is None or file.last is None:
        raise Refusal("admin.invalid", name=file.name, reason="it has no lines to compare")
    first = max(file.first, asked.since) if asked.since else file.first
    last = min(file.last, asked.until - timedelta(days=1)) if asked.until else file.last
    if first > last:
        reason = f"it covers {file.first} to {file.last}, none of which is asked for"
        raise Refusal("admin.invalid", name=file.name, reason=reason)
    return first, last


def _report(found: Balance) -> BalanceReport:
    differences = tuple(_shown(each) for each in found.differences if not each.excuse)
    return BalanceReport(
        agree=not differences,
        counters=found.counters,
        paces=found.paces,
        exchanges=found.exchanges,
        charged_usd=usd(found.charged_nano),
        corrections=found.corrections,
        holds=found.holds,
        leases=found.leases,
        unlevelled=found.unlevelled,
        unlevelled_usd=usd(found.unlevelled_nano),
        differences=differences,
        unchecked=tuple(_shown(each) for each in found.differences if each.excuse is not Excuse.NONE),
        more=found.more,
    )


def _shown(each: Difference) -> DifferenceShown:
    return DifferenceShown(
        tenant=each.tenant,
        level=each.level,
        what=each.what.value,
        money=each.what.is_money,
        begins=each.begins,
        ends=each.ends,
        counter=each.counter,
        behind=each.behind,
        difference=(each.counter or 0) - each.behind,
        exchanges=each.exchanges,
        excuse=each.excuse.value,
    )
