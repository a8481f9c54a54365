"""What people do with pauses: list, release, and pause by hand. Every act is recorded together with its effect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from shipworthy.control.access import act_of, within
from shipworthy.control.runaway import pause_act
from shipworthy.model.errors import Refusal
from shipworthy.model.op import Op, uuid7
from shipworthy.model.pause import REASON_CHARS_MAX, Pause, PauseAsked, Placed, release_command
from shipworthy.model.policy import Snapshot, Watched
from shipworthy.model.reading import EVERY_TENANT, Authority
from shipworthy.ports import AdminRecorder, PauseStore

NAME_CHARS_MAX = 1_024
NAMED_MAX = 5


class PauseShown(Struct, frozen=True, kw_only=True):
    """A pause as it may be shown, with the command that releases it."""

    id: UUID
    tenant: str
    kind: str  # session | principal
    principal: str
    session: str
    reason: str
    at: datetime
    by: str
    released_at: datetime | None
    released_by: str | None
    released_because: str | None
    release: str


class PausesShown(Struct, frozen=True, kw_only=True):
    pauses: tuple[PauseShown, ...]


class Named(Struct, frozen=True, kw_only=True):
    """What somebody wants paused or released. ``of`` is a session's principal; "" where only one can be meant.

    A principal is named ISSUER#SUBJECT or key:ID; a release also takes the subject alone while it is unambiguous.
    """

    kind: str
    name: str
    tenant: str
    of: str = ""


def pause_shown(pause: Pause) -> PauseShown:
    return PauseShown(
        id=pause.id,
        tenant=pause.tenant,
        kind=pause.kind.value,
        principal=pause.principal,
        session=pause.session,
        reason=pause.reason,
        at=pause.at,
        by=pause.by,
        released_at=pause.released_at,
        released_by=pause.released_by,
        released_because=pause.released_because,
        release=release_command(pause.tenant, pause.kind, pause.principal, pause.session),
    )


async def list_pauses(
    op: Op, pauses: PauseStore, acts: AdminRecorder, holder: Authority, tenant: str = ""
) -> Sequence[Pause]:
    """The pauses that stand, of one tenant or of all that ``holder`` covers, newest first. The read is recorded before."""
    scope = within(holder, tenant)
    await acts.act(act_of(op, holder, "pauses.read", scope, "pauses", {}))
    return await pauses.active(scope)


async def pause_by_hand(
    op: Op, pauses: PauseStore, snapshot: Snapshot, holder: Authority, named: Named, because: str
) -> Pause:
    """Pauses a session or a principal: within a second no worker serves it. Raises Refusal admin.*."""
    kind, tenant = _kind(named.kind), _tenant(snapshot, holder, named.tenant)
    principal = _principal(named.of if kind is Watched.SESSION else named.name)
    asked = PauseAsked(
        tenant=tenant,
        id=uuid7(op.clock.unix_ns()),
        kind=kind,
        principal=principal,
        session=_text("name", named.name) if kind is Watched.SESSION else "",
        reason=_because(because),
        by=holder.actor,
    )
    placed = await pauses.pause(asked, pause_act(op, asked, holder.actor))
    if placed is Placed.FULL:
        raise Refusal("admin.invalid", name="tenant", reason=f"{tenant} has its fill of pauses; release some first")
    standing = await pauses.active(tenant)
    found = [p for p in standing if (p.principal, p.session) == (asked.principal, asked.session)]
    if not found:
        raise Refusal("admin.not_found", what="pause", id=named.name[:64])  # released by somebody else meanwhile
    if placed is Placed.ALREADY:
        reason = f"{named.name!r} is paused since {found[0].at.isoformat(timespec='seconds')}, by {found[0].by}"
        raise Refusal("admin.invalid", name="name", reason=reason)
    return found[0]


async def release_named(
    op: Op, pauses: PauseStore, snapshot: Snapshot, holder: Authority, named: Named, because: str
) -> Pause:
    """Releases what is named: within a second every worker serves it again. Raises Refusal admin.*."""
    kind, tenant = _kind(named.kind), _tenant(snapshot, holder, named.tenant)
    because = _because(because)
    standing = [pause for pause in await pauses.active(tenant) if pause.kind is kind]
    found = [p for p in standing if p.name == named.name and (not named.of or p.principal == named.of)]
    if not found and kind is Watched.PRINCIPAL:
        found = [pause for pause in standing if pause.principal.partition("#")[2] == named.name]
    if not found:
        raise Refusal("admin.not_found", what=f"paused {kind.value}", id=named.name[:64])
    if len(found) > 1:
        those = ", ".join(sorted(pause.principal for pause in found)[:NAMED_MAX])
        how = "say --of PRINCIPAL" if kind is Watched.SESSION else "say it in full"
        raise Refusal("admin.invalid", name="name", reason=f"{len(found)} are called so, of {those}: {how}")
    return await _release(op, pauses, holder, found[0], because)


async def release_pause(op: Op, pauses: PauseStore, holder: Authority, pause_id: UUID, because: str) -> Pause:
    """Releases the pause with that id. Raises Refusal admin.*, also for what ``holder`` does not cover."""
    because = _because(because)
    found = next((pause for pause in await pauses.active(holder.scope) if pause.id == pause_id), None)
    if found is None:
        raise Refusal("admin.not_found", what="pause", id=str(pause_id))
    return await _release(op, pauses, holder, found, because)


async def _release(op: Op, pauses: PauseStore, holder: Authority, pause: Pause, because: str) -> Pause:
    facts = {"kind": pause.kind.value, "principal": pause.principal, "because": because}
    if pause.session:
        facts["session"] = pause.session
    act = act_of(op, holder, "spend.release", pause.tenant, str(pause.id), facts)
    ended = await pauses.release(pause.tenant, pause.id, because, act)
    if ended is None:
        raise Refusal("admin.not_found", what="pause", id=str(pause.id))
    return ended


def _kind(said: str) -> Watched:
    if said not in tuple(Watched):
        raise Refusal("admin.invalid", name="kind", reason=f"{said[:40]!r} is not one of {', '.join(Watched)}")
    return Watched(said)


def _tenant(snapshot: Snapshot, holder: Authority, said: str) -> str:
    tenant = within(holder, said)
    if tenant == EVERY_TENANT:
        raise Refusal("admin.invalid", name="tenant", reason="say which one is meant")
    if tenant not in snapshot.tenants:
        known = ", ".join(sorted(snapshot.tenants)) or "none"
        raise Refusal("admin.invalid", name="tenant", reason=f"{tenant!r} is not one of {known}")
    return tenant


def _principal(said: str) -> str:
    issuer, separated, subject = said.partition("#")
    if not (said.startswith("key:") and len(said) > len("key:")) and not (issuer and separated and subject):
        reason = f"{said[:80]!r} names nobody: wanted is ISSUER#SUBJECT, or key:ID of a service key"
        raise Refusal("admin.invalid", name="principal", reason=reason)
    return _text("principal", said)


def _text(name: str, said: str) -> str:
    if not said or len(said) > NAME_CHARS_MAX or not said.isprintable():
        reason = f"1 to {NAME_CHARS_MAX} printable letters are wanted"
        raise Refusal("admin.invalid", name=name, reason=reason)
    return said


def _because(said: str) -> str:
    said = said.strip()
    if not said or len(said) > REASON_CHARS_MAX or not said.isprintable():
        reason = f"a reason is wanted, of at most {REASON_CHARS_MAX} printable letters"
        raise Refusal("admin.invalid", name="because", reason=reason)
    return said
