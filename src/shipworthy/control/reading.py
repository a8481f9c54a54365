"""Reads of the record. Each is itself recorded, before anything is shown: who read what, and which part of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

from shipworthy.control.access import act_of, within
from shipworthy.control.shown import BodiesShown, bodies_shown
from shipworthy.model.correction import Correction
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Row
from shipworthy.model.op import Op
from shipworthy.model.reading import PAGE_ROWS_MAX, Authority, Page, Place, Wanted
from shipworthy.ports import AdminRecorder, Corrections, Exchanges

WATCH_S = 60
WATCHES_MAX = 1_000
NS_PER_S = 1_000_000_000


class Watches:
    """Which lists are being watched live: the same reader's same list is one act a minute, not one a refresh."""

    def __init__(self) -> None:
        self._until_ns: OrderedDict[tuple[Authority, Wanted], int] = OrderedDict()

    def begins(self, op: Op, holder: Authority, wanted: Wanted) -> bool:
        """Whether an act is due that stands for the reads of the next WATCH_S seconds."""
        now_ns = op.clock.monotonic_ns()
        if self._until_ns.get((holder, wanted), 0) > now_ns:
            return False
        self._until_ns[holder, wanted] = now_ns + WATCH_S * NS_PER_S
        self._until_ns.move_to_end((holder, wanted))
        if len(self._until_ns) > WATCHES_MAX:
            self._until_ns.popitem(last=False)
        return True


async def read_page(
    op: Op,
    exchanges: Exchanges,
    acts: AdminRecorder,
    holder: Authority,
    wanted: Wanted,
    after: Place | None = None,
    limit: int = PAGE_ROWS_MAX,
) -> Page:
    """One page of what ``holder`` may see. Raises Refusal admin.other_tenant."""
    scope = within(holder, wanted.tenant)
    facts = wanted.said() | {"limit": str(limit)} | ({"after": str(after.id)} if after else {})
    await acts.act(act_of(op, holder, "exchanges.read", scope, "exchanges", facts))
    return await exchanges.page(scope, wanted, after, limit)


async def watch_page(
    op: Op,
    exchanges: Exchanges,
    acts: AdminRecorder,
    holder: Authority,
    wanted: Wanted,
    watches: Watches,
    limit: int,
) -> Page:
    """The newest page again and again: one act stands for the reads of a minute, and says so."""
    scope = within(holder, wanted.tenant)
    if watches.begins(op, holder, wanted):
        facts = wanted.said() | {"limit": str(limit), "seconds": str(WATCH_S)}
        await acts.act(act_of(op, holder, "exchanges.watch", scope, "exchanges", facts))
    return await exchanges.page(scope, wanted, None, limit)


async def read_exchange(op: Op, exchanges: Exchanges, acts: AdminRecorder, holder: Authority, exchange_id: UUID) -> Row:
    """One exchange. Raises Refusal admin.not_found, also for what belongs to a tenant that ``holder`` does not cover."""
    await acts.act(act_of(op, holder, "exchange.read", holder.scope, str(exchange_id), {}))
    row = await exchanges.get(holder.scope, exchange_id)
    if row is None:
        raise Refusal("admin.not_found", what="exchange", id=str(exchange_id))
    return row


async def read_corrected(
    op: Op, exchanges: Exchanges, corrections: Corrections, acts: AdminRecorder, holder: Authority, exchange_id: UUID
) -> tuple[Row, Sequence[Correction]]:
    """One exchange and what was corrected since; one read on record. Raises Refusal admin.not_found."""
    row = await read_exchange(op, exchanges, acts, holder, exchange_id)
    return row, await corrections.of(row.tenant, (row.id,))


async def read_bodies(
    op: Op, exchanges: Exchanges, acts: AdminRecorder, holder: Authority, exchange_id: UUID
) -> BodiesShown:
    """What was said in one exchange; the act names its tenant and stands before anything is decrypted."""
    row = await exchanges.get(holder.scope, exchange_id)
    if row is None:
        raise Refusal("admin.not_found", what="exchange", id=str(exchange_id))
    await acts.act(act_of(op, holder, "body.read", row.tenant, str(exchange_id), {"subject": row.subject}))
    return bodies_shown(exchange_id, await exchanges.bodies(row.tenant, exchange_id))
