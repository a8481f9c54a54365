"""The pipeline's own promises: one outcome, one close, the last byte after the record, whatever is thrown at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from shipworthy import pipeline
from shipworthy.kit.builders import an_op
from shipworthy.kit.scripted import one_by_one
from shipworthy.model.chat import Event, Source, Take
from shipworthy.model.errors import FailureKind, ProviderFailure, Refusal, StoreUnavailable
from shipworthy.model.exchange import Exchange, Outcome
from shipworthy.model.route import Attempt
from shipworthy.ports import Replay, Stored

ORDER = [
    "identify",
    "decode",
    "authorize",
    "dedupe",
    "reserve",
    "resolve",
    "retrieve",
    "screen",
    "fit",
    "recall",
    "route",
    "call",
]
AWAITED = {"identify", "decode", "dedupe", "reserve", "retrieve", "screen", "recall", "call"}


class Events:
    """A reply of two pieces and an end; ``trouble`` is raised instead of the second."""

    def __init__(self, trouble: BaseException | None = None) -> None:
        self.left = [Event(b"a"), Event(b"b"), Event(b"end", done=True)]
        self.trouble = trouble
        self.closed = 0

    def __aiter__(self) -> Events:
        return self

    async def each(self, take: Take) -> bool:
        return await one_by_one(self, take)

    async def __anext__(self) -> Event:
        if self.trouble is not None and len(self.left) == 2:
            raise self.trouble
        await asyncio.sleep(0)
        return self.left.pop(0)

    async def aclose(self) -> None:
        self.closed += 1


class Sink:
    def __init__(self, told: list[str]) -> None:
        self.told = told

    async def open(self, opening: object) -> None:
        self.told.append("open")

    def send(self, payloads: Sequence[bytes]) -> bool:
        self.told.extend(payload.decode() for payload in payloads)
        return True

    async def drained(self) -> None: ...

    async def finish(self, opening: object, payload: bytes) -> None:
        self.told.append(f"finish {payload.decode()}")

    async def replay(self, stored: Stored) -> None:
        self.told.append("replay")

    async def refuse(self, refusal: Refusal) -> None:
        self.told.append(f"refuse {refusal.code}")


class World:
    """Stages that note that they ran; ``broken`` maps a stage to what it raises or does."""

    def __init__(self, events: Events | None = None, **broken: Any) -> None:
        self.told: list[str] = []
        self.events = events or Events()
        self.broken = broken
        self.x = Exchange(an_op())
        self.sink = Sink(self.told)
        self.stages: Any = SimpleNamespace(
            **{name: self._stage(name) for name in ORDER},
            inspect=lambda op, grant, event: event,
            encode=lambda op, request, event: event.raw,
            settle=self._stage("settle", result=SimpleNamespace(amount_nano=1), awaited=False),
            record=self._stage("record", awaited=True),
        )

    def _stage(self, name: str, result: Any = None, awaited: bool | None = None) -> Callable[..., Any]:
        awaited = name in AWAITED if awaited is None else awaited

        def run() -> Any:
            self.told.append(name)
            trouble = self.broken.get(name)
            if isinstance(trouble, BaseException):
                raise trouble
            if name == "call":
                model = SimpleNamespace(name="m", provider=SimpleNamespace(name="p"))
                return SimpleNamespace(stream=True, events=self.events, model=model, source=Source.MODEL)
            return result or SimpleNamespace(use_case=SimpleNamespace(name="u"), digest="", output_tokens_max=1)

        async def run_async(*_: Any) -> Any:
            if name in self.broken and callable(self.broken[name]):
                await self.broken[name]()
            return run()

        return run_async if awaited else lambda *_: run()

    async def serve(self) -> None:
        await pipeline.serve(self.x, self.stages, SimpleNamespace(credentials=None), self.sink)  # type: ignore[arg-type]


async def served(world: World) -> World:
    await world.serve()
    return world


def run(world: World) -> World:
    return asyncio.run(served(world))


def test_stages_run_in_the_order_of_the_design_and_the_last_byte_follows_the_record() -> None:
    world = run(World())
    assert world.told == [*ORDER, "open", "a", "b", "settle", "record", "finish end"]
    assert world.x.outcome is Outcome.SERVED
    assert world.events.closed == 0, "it came to its end by itself"


@pytest.mark.parametrize("stage", ORDER)
def test_a_refusal_in_any_stage_stops_there_and_is_recorded(stage: str) -> None:
    """Promise 1: nothing after the refusing stage runs; promise 2: a hold that exists is settled."""
    world = run(World(**{stage: Refusal("server.draining")}))
    ran = ORDER[: ORDER.index(stage) + 1]
    settled = ["settle"] if ORDER.index(stage) > ORDER.index("reserve") else []
    assert world.told == [*ran, *settled, "record", "refuse server.draining"]
    assert world.x.outcome is Outcome.REFUSED


@pytest.mark.parametrize("stage", ORDER)
def test_a_bug_in_any_stage_is_one_failed_exchange(stage: str) -> None:
    world = run(World(**{stage: ZeroDivisionError("bug")}))
    assert world.x.outcome is Outcome.FAILED
    assert world.told.count("record") == 1
    assert world.told[-1] == "refuse server.internal"


def test_a_refusal_after_a_provider_was_asked_is_a_failure() -> None:
    """What was asked may be billed: the row says failed, and the request counts against its limits."""
    refusal = Refusal("reserve.budget_exhausted", level="tenant", period="month")
    world = World(call=refusal)
    world.x.attempts.append(Attempt(0, "m", "p", "u", 0, 1, failure="server_error", sent=True))
    run(world)
    assert world.x.outcome is Outcome.FAILED
    assert world.told[-3:] == ["settle", "record", "refuse reserve.budget_exhausted"]


def test_a_reply_that_cannot_be_closed_is_settled_and_recorded_all_the_same() -> None:
    class Stuck(Events):
        async def aclose(self) -> None:
            raise OSError("the connection will not end")

    world = run(World(Stuck()))
    assert world.told[-3:] == ["settle", "record", "finish end"]
    assert world.x.outcome is Outcome.SERVED


def test_a_broken_stream_is_cut_and_settled() -> None:
    world = run(World(Events(ProviderFailure(FailureKind.BROKEN, "reset", sent=True))))
    assert world.x.outcome is Outcome.CUT
    assert world.told[-3:] == ["settle", "record", "refuse call.cut"]


def test_a_replay_is_neither_reserved_nor_charged() -> None:
    world = run(World(dedupe=Replay(Stored(an_op().id, 200, "application/json", b"{}"))))
    assert "reserve" not in world.told
    assert world.told[-2:] == ["record", "replay"]


def test_an_answer_that_cannot_be_recorded_is_not_given() -> None:
    world = run(World(record=StoreUnavailable("away")))
    assert world.told[-1] == "refuse record.unavailable"
    assert "finish end" not in world.told


@pytest.mark.parametrize("stage", [*sorted(AWAITED), "record"])
@pytest.mark.parametrize("cancels", [1, 2, 5])
def test_any_number_of_cancels_closes_once(stage: str, cancels: int) -> None:
    """Promise 2: a hold is settled on every exit, also when cancelled again while it is being settled."""

    async def scenario() -> World:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await go_on.wait()

        world = World(**{stage: wait})
        task = asyncio.create_task(world.serve())
        await reached.wait()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return world

    world = asyncio.run(scenario())
    assert world.told.count("record") == 1
    assert world.told.count("settle") == hasattr(world.x, "hold")
    assert world.x.outcome in (Outcome.CUT, Outcome.SERVED)
