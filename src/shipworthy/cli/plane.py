"""How a verb works on the control plane: beside a running server or a managed store, as whoever runs the command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from shipworthy.cli.options import EXIT_PROBLEM, EXIT_USAGE, fail
from shipworthy.cli.token import account, unheard

if TYPE_CHECKING:
    from shipworthy.model.op import Op
    from shipworthy.model.reading import Authority
    from shipworthy.ports import ControlPlane

T = TypeVar("T")


def with_plane(config: Path, story: Callable[[Op, ControlPlane, Authority], Awaitable[T]]) -> T:
    """What ``story`` returns. Whoever can read the manifest's secrets is an operator here, and on record by account.

    Ends the process with a reason and exit code 1 where it cannot be done, 2 where the command was wrong.
    """
    from shipworthy.model.errors import Refusal, StartRefused, StoreUnavailable
    from shipworthy.model.op import Op
    from shipworthy.model.reading import EVERY_TENANT, Authority

    async def told() -> T:
        from shipworthy.bootstrap import control_plane

        async with control_plane(config, unheard) as plane:
            return await story(Op.for_cli(unheard), plane, Authority(f"cli:{account()}", EVERY_TENANT))

    try:
        return asyncio.run(told())
    except StartRefused as refused:
        fail(refused)
    except StoreUnavailable as away:
        fail(StartRefused("store.unavailable", str(away), "Check the store with `shipworthy doctor`."))
    except Refusal as refusal:
        typer.secho(f"{refusal.code}: {refusal.message}", fg="red", err=True)
        typer.echo(f"  → {refusal.hint}", err=True)
        raise typer.Exit(EXIT_USAGE if refusal.code == "admin.invalid" else EXIT_PROBLEM) from refusal
