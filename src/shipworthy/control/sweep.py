"""The sweeper: whatever a dead worker held is settled at its ceiling, and its exchange gets a row.

Nobody knows what the worker's provider did, so the whole hold counts as spent: basis ``ceiling``, flag ``presumed``, outcome
failed. It may run anywhere, at any time and on several machines at once: a hold is settled with its row or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import get_origin

import msgspec
from msgspec import structs
from msgspec.structs import fields

from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.ledger import Charge
from shipworthy.model.money import PICO_PER_NANO, Basis, ChargeLine, Component
from shipworthy.model.observation import Failed, Lifecycle, Swept
from shipworthy.model.op import Op
from shipworthy.ports import SUSPENDED_S, Entry, Expired, Orphan, Stray, Sweeper

BATCH_MAX = 200
ROUNDS_MAX = 50
EXPIRE_MAX = 5_000
STRAYS_MAX = 1_000
FORGOTTEN_S = 900.0
PRESUMED = "presumed"

_BLANKS: dict[object, object] = {str: "", int: 0, bool: False}
_rows = msgspec.msgpack.Decoder(Row)


async def sweep(op: Op, sweeper: Sweeper, dead_workers: Sequence[str] = ()) -> int:
    """Settles the holds of ``dead_workers`` and every hold past its expiry; returns how many. Raises StoreUnavailable.

    Also makes the record's tables for the months to come.
    """
    if said := await sweeper.prepare_partitions():
        op.observe(Lifecycle("sweeper", "partitions", ", ".join(said)))
    await sweeper.suspend([s for s in await sweeper.strays(dead_workers, STRAYS_MAX) if s.suspended_s is None])
    holds = charged_nano = 0
    for _ in range(ROUNDS_MAX):
        orphans = await sweeper.orphans(dead_workers, BATCH_MAX)
        settled = await sweeper.presume(op, [presumed(op, orphan) for orphan in orphans])
        holds += len(settled)
        charged_nano += sum(row.charged_nano for row in settled)
        if len(orphans) < BATCH_MAX or not settled:
            break
    strays = await sweeper.strays(dead_workers, STRAYS_MAX)
    await sweeper.bury([stray for stray in strays if is_over(stray, dead_workers)])
    if holds:
        op.observe(Swept(holds, charged_nano))
    return holds


def is_over(stray: Stray, dead_workers: Sequence[str]) -> bool:
    """Whether what is left of a suspended lease may be spent again: nothing can still be charged to it.

    A worker that lives and does not speak, for whatever reason, keeps its money for FORGOTTEN_S; then it is free, and what
    it may still record is charged all the same.
    """
    if stray.suspended_s is None or not stray.settled:
        return False
    if stray.worker in dead_workers:
        return stray.silent
    if stray.suspended_s < SUSPENDED_S:
        return False
    return stray.silent or stray.ended or stray.suspended_s >= FORGOTTEN_S


async def expire(op: Op, sweeper: Sweeper, retention_days: int, bodies_days: int) -> Expired:
    """Removes what the manifest no longer keeps: exchanges and acts after ``retention_days``, bodies after ``bodies_days``.

    At most ROUNDS_MAX × EXPIRE_MAX of each kind; the next call goes on. Raises StoreUnavailable.
    """
    now = datetime.fromtimestamp(op.clock.unix_ns() / 1e9, UTC)
    rows_before, bodies_before = now - timedelta(days=retention_days), now - timedelta(days=bodies_days)
    gone = Expired()
    for _ in range(ROUNDS_MAX):
        more = await sweeper.expire(rows_before, max(rows_before, bodies_before), EXPIRE_MAX)
        gone = Expired(
            gone.bodies + more.bodies,
            gone.exchanges + more.exchanges,
            gone.acts + more.acts,
            gone.months + more.months,
        )
        if max(more.bodies, more.exchanges, more.acts) < EXPIRE_MAX:
            break
    if gone != Expired():
        months = f", {', '.join(gone.months)}" if gone.months else ""
        said = f"{gone.bodies} bodies, {gone.exchanges} exchanges, {gone.acts} acts{months}"
        op.observe(Lifecycle("sweeper", "expired", said))
    return gone


def presumed(op: Op, orphan: Orphan) -> Entry:
    """The exchange of an orphaned hold as it is recorded: all that was held is charged.

    On a lease that is what it has left: under ``relaxed`` it may have been spent again before its rows were written, so that
    one of its rows stands for more than was used, and another for less. Together they cover it.
    """
    hold = orphan.hold
    amount_nano = hold.estimate.amount_nano
    unit_pico = amount_nano * PICO_PER_NANO
    line = ChargeLine(0, "", Component.REQUEST, 1, unit_pico, amount_nano, Basis.CEILING)
    known = _known(op, orphan)
    row = structs.replace(
        known,
        arrived_unix_ns=orphan.arrived_unix_ns,
        outcome=Outcome.FAILED,
        charge_lines=(line,) if amount_nano else (),
        estimated_nano=amount_nano,
        held_nano=amount_nano,
        charged_nano=amount_nano,
        overrun_nano=0,
        lease_id=hold.lease_id,
        refusal_detail=f"the worker {orphan.worker} ended before it settled",
        flags=(*known.flags, PRESUMED),
    )
    return Entry(row, None, hold, Charge(row.charge_lines, amount_nano, 0, hold.estimate.tokens))


def _known(op: Op, orphan: Orphan) -> Row:
    """What was known when money was set aside; of an intent that cannot be read, what the hold itself says."""
    hold = orphan.hold
    try:
        row = _rows.decode(orphan.intent)
        if (row.id, row.tenant) == (hold.id, hold.tenant):
            return row
        reason = f"it names {row.tenant} {row.id}"
    except msgspec.MsgspecError as unreadable:
        reason = str(unreadable)
    op.observe(Failed("sweep", f"the intent of the hold cannot be used: {reason}", str(hold.id), ""))
    blank = {
        field.name: _BLANKS.get(field.type, () if get_origin(field.type) is tuple else None) for field in fields(Row)
    }
    return msgspec.convert(blank | {"id": hold.id, "tenant": hold.tenant, "outcome": Outcome.FAILED}, Row)
