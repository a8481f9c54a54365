"""Pauses as people handle them: the admin API, the command line, and what either refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import typer
from click.testing import Result
from tests.unit.test_http_admin import Api, code
from typer.testing import CliRunner

from shipworthy.cli import cost
from shipworthy.control.runaway import pause_act
from shipworthy.kit.builders import an_op
from shipworthy.kit.memory_plane import MemoryPlane, memory_plane
from shipworthy.model.pause import RUNAWAY, PauseAsked, release_command
from shipworthy.model.policy import Watched
from shipworthy.ports import ControlPlane

ADA = "https://login.example#ada"
PAUSE = {"kind": "principal", "name": ADA, "because": "a loop"}


@pytest.fixture
def memory() -> MemoryPlane:
    return memory_plane()


@pytest.fixture
def api(memory: MemoryPlane) -> Api:
    return Api(memory)


@pytest.fixture
def cli(memory: MemoryPlane, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    @asynccontextmanager
    async def control_plane(config: object, observe: object) -> AsyncIterator[ControlPlane]:
        yield memory.plane

    monkeypatch.setattr("shipworthy.bootstrap.control_plane", control_plane)
    app = typer.Typer()
    cost.register(app)
    return lambda *words: CliRunner(env={"COLUMNS": "160"}).invoke(app, ["cost", *words])


def stand(memory: MemoryPlane, principal: str = ADA, session: str = "", tenant: str = "northwind") -> None:
    """A pause by the watch."""
    kind = Watched.SESSION if session else Watched.PRINCIPAL
    asked = PauseAsked(
        tenant=tenant, id=uuid4(), kind=kind, principal=principal, session=session, reason="spent $9", by=RUNAWAY
    )
    asyncio.run(memory.pauses.pause(asked, pause_act(an_op(), asked, RUNAWAY)))


def acts(memory: MemoryPlane) -> list[tuple[str, str, str]]:
    return [(act.actor, act.act, act.tenant) for act in memory.acts.acts]


def test_over_http_a_pause_is_made_listed_and_released(api: Api) -> None:
    made = api.ask("/admin/v1/pauses", method="POST", **PAUSE)
    assert made.status == 201
    assert (made.json()["tenant"], made.json()["by"], made.json()["session"]) == ("northwind", "ann", "")
    assert api.ask("/admin/v1/pauses").json() == {"pauses": [made.json()]}
    assert api.ask("/admin/v1/pauses", "southwind-admin").json() == {"pauses": []}
    target = f"/admin/v1/pauses/{made.json()['id']}/release"
    assert code(api.ask(target, "southwind-admin", "POST", because="mine")) == "admin.not_found"
    ended = api.ask(target, method="POST", because="a test of load")
    assert (ended.status, ended.json()["released_by"], ended.json()["released_because"]) == (
        200,
        "ann",
        "a test of load",
    )
    assert code(api.ask(target, method="POST", because="again")) == "admin.not_found"
    assert api.ask("/admin/v1/pauses").json() == {"pauses": []}
    done = [act for act in acts(api.memory) if act[1] != "pauses.read"]
    assert done == [("ann", "spend.pause", "northwind"), ("ann", "spend.release", "northwind")]
    assert api.memory.acts.acts[-2].facts["because"] == "a test of load"


def test_a_session_is_paused_with_its_principal(api: Api) -> None:
    wanted = PAUSE | {"kind": "session", "name": "s-1"}
    assert code(api.ask("/admin/v1/pauses", method="POST", **wanted)) == "admin.invalid"
    made = api.ask("/admin/v1/pauses", method="POST", **wanted, of="key:abc").json()
    assert (made["kind"], made["principal"], made["session"]) == ("session", "key:abc", "s-1")
    assert made["release"] == ('shipworthy cost release session s-1 --of key:abc --tenant northwind --because "…"')


@pytest.mark.parametrize(
    "changes",
    [{"kind": "team"}, {"name": "ada"}, {"name": "#ada"}, {"name": "key:"}, {"name": ""}, {"because": "  "},
     {"because": "x" * 2_001}, {"name": ADA + "\u202e"}, {"tenant": "nobody"}, {"more": 1}],
)  # fmt: skip
def test_a_pause_that_means_nothing_is_refused(api: Api, changes: dict[str, object]) -> None:
    refused = api.ask("/admin/v1/pauses", method="POST", **PAUSE | changes)
    assert code(refused) in ("admin.invalid", "admin.other_tenant")
    assert api.memory.pauses.pauses == {}


def test_who_may(api: Api) -> None:
    """An administrator within the own tenant, an operator in any that is named, nobody else."""
    assert code(api.ask("/admin/v1/pauses", "northwind-agent", "POST", **PAUSE)) == "admin.forbidden"
    assert code(api.ask("/admin/v1/pauses", method="POST", **PAUSE, tenant="southwind")) == "admin.other_tenant"
    assert code(api.ask("/admin/v1/pauses", "operator", "POST", **PAUSE)) == "admin.invalid"
    made = api.ask("/admin/v1/pauses", "operator", "POST", **PAUSE, tenant="southwind")
    assert made.status == 201
    again = api.ask("/admin/v1/pauses", "operator", "POST", **PAUSE, tenant="southwind")
    assert code(again) == "admin.invalid"
    assert "is paused since" in again.json()["error"]["message"]
    assert code(api.ask("/admin/v1/pauses/nonsense/release", "operator", "POST", because="x")) == "admin.not_found"


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_the_command_line_lists_the_reason_and_the_command(cli: Callable[..., Result], memory: MemoryPlane) -> None:
    assert ok(cli("paused")) == "Nobody is paused.\n"
    stand(memory, session="s 1; rm -rf")
    stand(memory, principal="key:abc", tenant="southwind")
    listed = ok(cli("paused"))
    assert f"northwind: session s 1; rm -rf of {ADA}, paused since" in listed
    assert "because   spent $9" in listed
    assert f"release session 's 1; rm -rf' --of '{ADA}' --tenant northwind" in listed.replace(ADA, f"'{ADA}'").replace(
        "''", "'"
    )
    assert [
        each["principal"] for each in json.loads(ok(cli("paused", "--json", "--tenant", "southwind")))["pauses"]
    ] == ["key:abc"]


def test_the_command_line_releases_what_is_named(cli: Callable[..., Result], memory: MemoryPlane) -> None:
    stand(memory, session="s-1")
    stand(memory, principal="key:abc", session="s-1")
    stand(memory)
    said = ("--tenant", "northwind", "--because", "it was a test")
    ambiguous = cli("release", "session", "s-1", *said)
    assert ambiguous.exit_code == 2
    assert "--of" in ambiguous.stderr
    assert "session s-1 of key:abc is released since" in ok(cli("release", "session", "s-1", "--of", "key:abc", *said))
    assert f"principal {ADA} is released since" in ok(cli("release", "principal", "ada", *said))
    assert f"session s-1 of {ADA} is released since" in ok(cli("release", "session", "s-1", *said))
    gone = cli("release", "session", "s-1", *said)
    assert (gone.exit_code, "admin.not_found" in gone.stderr) == (1, True)
    assert [act for _, act, _ in acts(memory)].count("spend.release") == 3
    assert cli("release", "session", "s-1", "--tenant", "northwind").exit_code == 2, "a reason is wanted"


def test_the_command_line_pauses(cli: Callable[..., Result], memory: MemoryPlane) -> None:
    made = json.loads(
        ok(cli("pause", "principal", ADA, "--tenant", "northwind", "--because", "a leaked key", "--json"))
    )
    assert made["reason"] == "a leaked key"
    assert made["by"].startswith("cli:")
    assert "paused since" in ok(cli("pause", "session", "s-1", "--of", ADA, "--tenant", "northwind", "--because", "x"))


def test_a_command_survives_any_shell() -> None:
    said = release_command("t", Watched.SESSION, "https://a#b'c", "$(reboot)")
    assert "'$(reboot)'" in said
