"""``shipworthy cost paused | pause | release``: who is refused because of what they spend, and how that ends."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipworthy.cli.key import say_json
from shipworthy.cli.options import Config, Json
from shipworthy.cli.plane import with_plane
from shipworthy.cli.token import plain

if TYPE_CHECKING:
    from shipworthy.control.pauses import PauseShown
    from shipworthy.model.op import Op
    from shipworthy.model.pause import Pause
    from shipworthy.model.reading import Authority
    from shipworthy.ports import ControlPlane


class PauseKind(StrEnum):
    SESSION = "session"
    PRINCIPAL = "principal"


Kind = Annotated[PauseKind, typer.Argument(help="What is meant.")]
Name = Annotated[
    str, typer.Argument(help="The session's id; or the principal: ISSUER#SUBJECT, key:ID of a service key.")
]
Tenant = Annotated[str, typer.Option(help="The tenant that it is of.")]
Of = Annotated[str, typer.Option(help="A session's principal.")]
Because = Annotated[str, typer.Option(help="Why; it is recorded.")]


def register(cost: typer.Typer) -> None:
    cost.command("paused")(paused)
    cost.command("pause")(pause)
    cost.command("release")(release)


def paused(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """List who is paused, newest first: since when, why, and the command that releases it. The read is recorded."""

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> Sequence[Pause]:
        from shipworthy.control.pauses import list_pauses

        return await list_pauses(op, plane.pauses, plane.acts, holder, tenant)

    found = [shown(each) for each in with_plane(config, story)]
    if as_json:
        from shipworthy.control.pauses import PausesShown

        say_json(PausesShown(pauses=tuple(found)))
    elif not found:
        typer.echo("Nobody is paused.")
    else:
        typer.echo("\n\n".join(map(told, found)))


def pause(
    kind: Kind,
    name: Name,
    tenant: Tenant,
    because: Because,
    of: Of = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Pause by hand: within a second no worker lets it spend, until it is released. A session also needs --of."""

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> Pause:
        from shipworthy.control.pauses import Named, pause_by_hand

        named = Named(kind=kind.value, name=name, tenant=tenant, of=of)
        return await pause_by_hand(op, plane.pauses, plane.snapshot(), holder, named, because)

    made = shown(with_plane(config, story))
    if as_json:
        say_json(made)
    else:
        typer.echo(told(made))


def release(
    kind: Kind,
    name: Name,
    tenant: Tenant,
    because: Because,
    of: Of = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """End a pause: within a second every worker serves it again, and what it had spent by then is not held against it."""

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> Pause:
        from shipworthy.control.pauses import Named, release_named

        named = Named(kind=kind.value, name=name, tenant=tenant, of=of)
        return await release_named(op, plane.pauses, plane.snapshot(), holder, named, because)

    ended = shown(with_plane(config, story))
    if as_json:
        say_json(ended)
    else:
        typer.echo(f"{whose(ended)} is released since {ended.released_at:%Y-%m-%d %H:%M:%S} UTC")


def shown(pause: Pause) -> PauseShown:
    from shipworthy.control.pauses import pause_shown

    return pause_shown(pause)


def told(pause: PauseShown) -> str:
    """A pause as a paragraph: the reason is a sentence, and the command must be copied whole."""
    lines = (
        f"{whose(pause)}, paused since {pause.at:%Y-%m-%d %H:%M:%S} UTC by {plain(pause.by)}",
        f"  because   {plain(pause.reason)}",
        f"  release   {plain(pause.release)}",
    )
    return "\n".join(lines)


def whose(pause: PauseShown) -> str:
    session = f"session {plain(pause.session)} of " if pause.session else "principal "
    return f"{plain(pause.tenant)}: {session}{plain(pause.principal)}"
