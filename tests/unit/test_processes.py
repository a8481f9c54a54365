"""What the supervisor keeps to: whoever does not read holds nobody up, a change is never missed, no secret shows."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shipworthy.adapters.embedded.llama import State
from shipworthy.adapters.providers.llama_cpp import LlamaCppConfig
from shipworthy.adapters.providers.reach import ModelServer
from shipworthy.bootstrap import DataWorker
from shipworthy.http.protocol import EdgeProtocol
from shipworthy.launch import Launch
from shipworthy.manifest.deployment import Bind
from shipworthy.model.errors import StartRefused
from shipworthy.process import control
from shipworthy.process import ground as grounds
from shipworthy.process.channel import Channel, Reload
from shipworthy.process.child import Child
from shipworthy.process.nursery import Nursery
from shipworthy.process.supervisor import Supervisor
from shipworthy.process.watch import Watch

SERVER = ModelServer("http://127.0.0.1:1/v1", "the-childs-key", ())
TEXTS = {"/m/shipworthy.yaml": b"x" * (4 << 20), "/m/secret": b"secret-text"}


def test_a_manifest_of_many_tenants_passes_whole() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        here, there = await Channel.over(ours), await Channel.over(theirs)
        receiving = asyncio.create_task(there.receive())
        await here.send(Reload("digest", TEXTS, {"local": SERVER}))
        assert await receiving == Reload("digest", TEXTS, {"local": SERVER})
        here.close()
        there.close()

    asyncio.run(scenario())


def test_a_process_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped worker must not keep the supervisor from stopping the server."""
    monkeypatch.setattr("shipworthy.process.child.SEND_S_MAX", 0.1)

    async def scenario() -> None:
        ours, theirs = socket.socketpair()

        async def heard(child: Child, message: object) -> None:
            return

        child = Child("worker", "worker 1", heard, Nursery())
        child._channel = await Channel.over(ours)
        began = time.monotonic()
        await child.send(Reload("one", TEXTS, {}))
        await child.send(Reload("two", {}, {}))
        assert time.monotonic() - began < 5
        late = await Channel.over(theirs)
        assert [await late.receive(), await late.receive()] == [Reload("one", TEXTS, {}), Reload("two", {}, {})]
        late.close()
        child._channel.close()

    asyncio.run(scenario())


def test_no_message_shows_its_secrets() -> None:
    launch = Launch("worker 1", "c", TEXTS, "id", "postgresql://login:hidden-word@h/d", {"local": SERVER}, "/tmp")
    for said in (launch, Reload("digest", TEXTS, {"local": SERVER}), SERVER):
        assert not any(secret in repr(said) for secret in ("the-childs-key", "secret-text", "hidden-word"))


def test_a_change_during_a_reload_is_seen(tmp_path: Path) -> None:
    """What was looked at before the files were read counts, not what they became meanwhile."""
    file = tmp_path / "shipworthy.yaml"
    file.write_text("one")
    watch = Watch((file,))
    file.write_text("second")
    assert [watch.changed(), watch.changed()] == [False, True]
    file.write_text("the third")  # while "second" is being put in force
    assert [watch.changed(), watch.changed()] == [False, True]


class Model:
    """A local model's child, as ``poll`` tells of it."""

    def __init__(self, *states: State | OSError) -> None:
        self.states = list(states)

    def poll(self) -> State:
        state = self.states.pop(0)
        if isinstance(state, OSError):
            raise state
        return state


def test_each_death_of_a_model_is_told_once_and_its_last_one_too() -> None:
    waiting, failed, ready = (
        State("waiting", None, 1, 0, None),
        State("failed", None, 10, 9, None),
        State("ready", 7, 0, 1, None),
    )
    told: list[Any] = []
    ground = object.__new__(grounds.Ground)
    ground._observe, ground._postgres, ground._told = told.append, None, {}
    ground._children = {"m": Model(waiting, waiting, OSError("no process"), ready, failed, failed)}  # type: ignore[dict-item]
    for _ in range(6):
        ground.look()
    assert [one.state for one in told] == ["died", "refused", "ready", "failed"]


def test_a_local_model_is_not_exchanged_behind_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that names another file for a running model is refused: the record would name what did not answer."""
    started: list[object] = []

    class Loading:
        def __init__(self, settings: object, progress: object) -> None:
            started.append(settings)

        def start(self) -> Any:
            return SimpleNamespace(
                base_url="", api_key="", default_stop=(), upstream_model="m", context_tokens=1, reuse_connections=False
            )

    def loaded(path: str) -> Any:
        provider = SimpleNamespace(name="local", settings=LlamaCppConfig.model_construct(path=Path(path)))
        return SimpleNamespace(snapshot=SimpleNamespace(providers={"local": provider}))

    monkeypatch.setattr(grounds, "LlamaChild", Loading)
    ground = grounds.Ground(loaded("/one.gguf"), migrate=False, observe=lambda _: None, progress=lambda _: None)
    ground.prepare(loaded("/one.gguf"))
    ground.prepare(loaded("/one.gguf"))
    with pytest.raises(StartRefused, match="can't change while the server runs"):
        ground.prepare(loaded("/two.gguf"))
    assert len(started) == 1


def test_readiness_tells_strangers_no_reasons() -> None:
    """Anyone may ask /readyz: addresses, logins and what a manifest says stand in the log."""
    worker = object.__new__(DataWorker)
    worker.draining, worker.degraded, worker._store_away = False, "hidden-word", "hidden-word"
    worker.live = SimpleNamespace(snapshot=SimpleNamespace(digest="d"))  # type: ignore[assignment]
    worker._ground = SimpleNamespace(issuers=SimpleNamespace(degraded=lambda: ("hidden-word",)))  # type: ignore[assignment]
    ready, checks = worker.readiness()
    assert not ready
    assert "hidden-word" not in str(checks)
    assert [checks[name] != "ok" for name in ("store", "manifest", "issuers")] == [True] * 3


def test_told_to_stop_while_it_comes_up_it_goes_down_in_order() -> None:
    """Ctrl-C during a start is no error."""

    async def scenario() -> None:
        async def heard(child: Child, message: object) -> None:
            return

        supervisor = object.__new__(Supervisor)
        server = SimpleNamespace(bind=Bind("127.0.0.1", 0))
        supervisor.loaded = SimpleNamespace(deployment=SimpleNamespace(server=server))  # type: ignore[assignment]
        supervisor._stopping, supervisor.started = asyncio.Event(), asyncio.Event()
        supervisor._control, supervisor._workers = Child("worker", "control", heard, Nursery()), []
        supervisor._supervise = lambda *_: asyncio.Event().wait()  # type: ignore[method-assign, assignment]
        supervisor.stop()
        tasks: list[asyncio.Task[None]] = []
        await supervisor._start(tasks)
        for task in tasks:
            task.cancel()
        assert supervisor._listener is not None
        supervisor._listener.close()
        assert not supervisor.started.is_set()

    asyncio.run(scenario())


def test_the_control_plane_has_the_edges_bounds_too() -> None:
    """A head that drips holds a place there for as long as anywhere."""

    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = control._server(lambda *_: None)
        serving = server.begin(listener, Bind("127.0.0.1", 0), lambda _: None)
        assert server.config.http is EdgeProtocol
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()

    asyncio.run(scenario())


def test_whatever_keeps_the_store_from_answering_is_noticed_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that dies would say for ever what it said last."""
    monkeypatch.setattr("shipworthy.bootstrap.STORE_LOOK_S", 0.0)
    answers: list[BaseException | int] = [1, ZeroDivisionError("unforeseen"), 2, asyncio.CancelledError()]
    seen: list[str] = []
    worker = object.__new__(DataWorker)

    async def version() -> int:
        seen.append(worker._store_away)
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    worker._store_away, worker.observe = "", lambda _: None
    worker._ground = SimpleNamespace(keys=SimpleNamespace(version=version))  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(worker.run())
    assert [bool(away) for away in seen] == [False, False, True, False]
