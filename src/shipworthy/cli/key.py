"""``shipworthy key create | list | revoke``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipworthy.cli import tables
from shipworthy.cli.options import Config, Json
from shipworthy.cli.plane import with_plane
from shipworthy.cli.token import plain, usage

if TYPE_CHECKING:
    from shipworthy.control.shown import KeyShown
    from shipworthy.model.op import Op
    from shipworthy.model.reading import Authority
    from shipworthy.ports import ControlPlane, ServiceKey

DAYS = re.compile(r"([1-9][0-9]{0,4})([dw])")
UNIT_DAYS = {"d": 1, "w": 7}
COLOURS = {"active": "green", "expired": "yellow", "revoked": "red"}


def register(app: typer.Typer) -> None:
    key = typer.Typer(help="Service keys: make, list, revoke.", no_args_is_help=True)
    key.command("create")(create)
    key.command("list")(show)
    key.command("revoke")(revoke)
    app.add_typer(key, name="key")


def create(
    tenant: Annotated[str, typer.Option(help="The tenant that the key is of.")],
    role: Annotated[str, typer.Option(help="The role that it carries; the role must say keys: true.")],
    use_case: Annotated[list[str] | None, typer.Option(help="Only for this use case; may be said again.")] = None,
    expires: Annotated[str, typer.Option(help="How long it lasts: 90d, 12w. Nothing = until it is revoked.")] = "",
    name: Annotated[str, typer.Option(help="What it is for; keys of one name share their budgets.")] = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Make a key. It goes to standard output, this once; everything else goes to standard error."""
    lasts = DAYS.fullmatch(expires)
    if expires and lasts is None:
        usage(f"--expires {expires!r} is no duration: say 90d or 12w")

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> tuple[ServiceKey, str]:
        from shipworthy.control.access import KeyAsked, create_key

        asked = KeyAsked(
            tenant=tenant,
            role=role,
            name=name,
            use_cases=tuple(dict.fromkeys(use_case or ["*"])),
            expires_days=int(lasts[1]) * UNIT_DAYS[lasts[2]] if lasts else None,
        )
        return await create_key(op, plane.keys, plane.snapshot(), plane.pepper, holder, asked)

    key, secret = with_plane(config, story)
    if as_json:
        from shipworthy.control.shown import KeyMade

        say_json(KeyMade(key=shown(key), secret=secret))
        return
    typer.echo(secret)
    until = f"until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "until it is revoked"
    typer.echo(f"{plain(key.name)} of {key.tenant}, role {key.role}, {until}; id {key.id}", err=True)
    typer.echo("Keep it now: it is shown once and stored nowhere.", err=True)


def show(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """List keys, newest first; never the keys themselves."""

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> Sequence[ServiceKey]:
        from shipworthy.control.access import list_keys

        return await list_keys(op, plane.keys, plane.acts, plane.snapshot(), holder, tenant)

    keys = [shown(key) for key in with_plane(config, story)]
    if as_json:
        from shipworthy.control.shown import KeysShown

        say_json(KeysShown(keys=tuple(keys)))
    else:
        show_table(keys)


def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `key list` shows it.")],
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Take a key back: within a second no worker accepts it."""

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> ServiceKey:
        from shipworthy.control.access import revoke_key

        return await revoke_key(op, plane.keys, holder, key_id)

    key = with_plane(config, story)
    if as_json:
        say_json(shown(key))
    else:
        typer.echo(
            f"{key.id} ({plain(key.name)} of {key.tenant}) is revoked since {key.revoked_at:%Y-%m-%d %H:%M:%S} UTC"
        )


def shown(key: ServiceKey) -> KeyShown:
    from shipworthy.control.shown import key_shown
    from shipworthy.model.op import SystemClock

    return key_shown(key, SystemClock().unix_ns())


def show_table(keys: Sequence[KeyShown]) -> None:
    from rich.text import Text

    if not keys:
        typer.echo("There are no keys.")
        return
    table = tables.plain_table()
    tables.add_figures(table, "id", [key.id for key in keys], left=True)
    named = {
        "tenant": [plain(key.tenant) for key in keys],
        "name": [plain(key.name) for key in keys],
        "role": [plain(key.role) for key in keys],
        "use cases": [plain(", ".join(key.use_cases)) for key in keys],
    }
    for title, names in named.items():
        tables.add_names(table, title, names)
    tables.add_figures(table, "state", [key.state for key in keys], left=True)
    ends = [f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "never" for key in keys]
    tables.add_figures(table, "expires", ends, left=True)
    for key, end, *names in zip(keys, ends, *named.values(), strict=True):
        table.add_row(key.id, *map(Text, names), Text(key.state, style=COLOURS[key.state]), end)
    tables.show(table)


def say_json(said: object) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(said), indent=2).decode())
